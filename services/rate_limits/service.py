"""Owns which limits a request meets: those of its user's plan, or those of its address."""

from schema.ids import UserId
from schema.plans import RateLimits
from services.rate_limits.counting import Decision
from services.rate_limits.limiter import RateLimiter
from services.rate_limits.rules import AuthLimits, Group, LimitSet, limits_of
from services.rate_limits.subjects import account_subject, address_subject, user_subject


class RateLimitService:
    """Counts requests, and says which of them are too many.

    Without a limiter nothing is: then each decision is None.
    """

    def __init__(self, limiter: RateLimiter | None, auth: AuthLimits) -> None:
        self._limiter = limiter
        self._auth = auth

    @property
    def is_degraded(self) -> bool:
        """Whether this process decides on its own, since Redis is away."""
        return self._limiter is not None and self._limiter.is_degraded

    async def request(self, user_id: UserId, rates: RateLimits, group: Group) -> Decision | None:
        """Count a request of a user whose plan has these rates."""
        return await self._hit(user_subject(user_id), limits_of(rates, group))

    async def auth_request(self, host: str | None) -> Decision | None:
        """Count a request of somebody at an address who is not signed in."""
        return await self._hit(address_subject(host), self._auth.of_address())

    async def wrong_credential(self, host: str | None) -> Decision | None:
        """Count a token or key that is not valid, or not any more, for where it came from.

        Apart from `auth_request`: those with an old token have to be able to renew it.
        """
        return await self._hit(address_subject(host), self._auth.of_wrong_credentials())

    async def login(self, email: str) -> Decision | None:
        """Count a try to sign in to the account with this e-mail address, if there is one.

        Counted for the account, so that many addresses together have no more guesses. Those
        who are signed in already are not touched by it.
        """
        return await self._hit(account_subject(email), self._auth.of_account())

    async def _hit(self, subject: str, limits: LimitSet) -> Decision | None:
        return None if self._limiter is None else await self._limiter.hit(subject, limits)
