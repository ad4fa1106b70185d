"""Counting requests: in Redis, or in this process while Redis is unavailable.

Each process then allows on its own what all of them would allow together, and starts from zero;
a limit is never a reason to fail. The library `limits` counts.
Source: https://limits.readthedocs.io/en/stable/strategies.html#sliding-window-counter
"""

import asyncio
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog
from cachetools import LRUCache
from limits import RateLimitItem, RateLimitItemPerSecond, WindowStats
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import RateLimiter as Counter
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.asyncio import Redis
from redis.exceptions import RedisError

from schema.ids import UserId
from schema.plans import RateLimits
from services.rate_limits.rules import (
    AuthLimits,
    Group,
    Limit,
    LimitSet,
    account_subject,
    address_subject,
    limits_for,
    user_subject,
)

_log = structlog.get_logger(__name__)

KEY_PREFIX: Final = "everturn:limits"
# Redis answers in less than 1 ms; a request does not wait for one that is slow.
_REDIS_TIMEOUT: Final = timedelta(milliseconds=250)
_PAUSE: Final = timedelta(seconds=1)
# A crowd is counted in turn: all at once would wait for connections until Redis seems too slow.
_AT_A_TIME: Final = 16
_MAX_SUBJECTS: Final = 20_000
_NO_TIME: Final = timedelta(0)


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a request is allowed, with the limit that decided.

    `remaining` and `reset_after` are read right after the decision: concurrent requests may count,
    too. After `reset_after` one more request is allowed than now.
    """

    allowed: bool
    limit: Limit
    remaining: int
    reset_after: timedelta


class RateLimiter:
    """Counts requests per subject. It never fails, and waits for Redis at most `redis_timeout`.

    After a failure Redis is not asked for the length of `pause`; then one request tries it again.
    The process itself counts the `max_subjects` most recent subjects.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        redis_timeout: timedelta = _REDIS_TIMEOUT,
        pause: timedelta = _PAUSE,
        max_subjects: int = _MAX_SUBJECTS,
    ) -> None:
        self._shared = SlidingWindowCounterRateLimiter(_storage_in(redis))
        self._local: LRUCache[str, SlidingWindowCounterRateLimiter] = LRUCache(max_subjects)
        self._redis_timeout_s = redis_timeout.total_seconds()
        self._pause_s = pause.total_seconds()
        self._paused_until = 0.0
        self._degraded = False
        self._turns = asyncio.Semaphore(_AT_A_TIME)

    @property
    def is_degraded(self) -> bool:
        """Whether this process counts on its own, because Redis is unavailable."""
        return self._degraded

    async def hit(self, subject: str, limits: LimitSet) -> Decision:
        """Take one from all limits of the subject, or return the limit that refuses."""
        decision = await self._take_shared(subject, limits)
        return decision or await take(self._local_counter(subject), subject, limits)

    async def _take_shared(self, subject: str, limits: LimitSet) -> Decision | None:
        """Let Redis decide; return None if it is unavailable."""
        async with self._turns:
            return await self._try_shared(subject, limits)

    async def _try_shared(self, subject: str, limits: LimitSet) -> Decision | None:
        if self._degraded:
            if time.monotonic() < self._paused_until:
                return None
            # This request tries it for all others.
            self._pause()
        try:
            async with asyncio.timeout(self._redis_timeout_s):
                decision = await take(self._shared, subject, limits)
        except (RedisError, OSError, TimeoutError) as error:
            self._lose(error)
            return None
        self._recover()
        return decision

    def _local_counter(self, subject: str) -> SlidingWindowCounterRateLimiter:
        """Return the subject's own counter: the library scans a storage on each hit.

        With 20,000 keys in one storage a hit took 1.6 ms, with a few it takes 0.03 ms.
        """
        counter = self._local.get(subject)
        if counter is None:
            counter = self._local[subject] = SlidingWindowCounterRateLimiter(MemoryStorage())
        return counter

    def _pause(self) -> None:
        self._paused_until = time.monotonic() + self._pause_s

    def _lose(self, error: Exception) -> None:
        self._pause()
        if not self._degraded:
            self._degraded = True
            _log.warning("rate_limiter_degraded", error=type(error).__name__)

    def _recover(self) -> None:
        if self._degraded:
            self._degraded = False
            _log.warning("rate_limiter_recovered")


def _storage_in(redis: Redis) -> RedisStorage:
    """Return a storage that uses the connections of `redis`, with their timeouts."""
    return RedisStorage(
        "redis://",
        implementation="redispy",
        key_prefix=KEY_PREFIX,
        connection_pool=redis.connection_pool,  # type: ignore[arg-type]  # a documented option
    )


class RateLimitService:
    """Counts requests, and refuses those over the limits of their user, account or address.

    Without a limiter there are no limits: each decision is None.
    """

    def __init__(self, limiter: RateLimiter | None, auth: AuthLimits) -> None:
        self._limiter = limiter
        self._auth = auth

    @property
    def is_degraded(self) -> bool:
        """Whether this process counts on its own, because Redis is unavailable."""
        return self._limiter is not None and self._limiter.is_degraded

    async def request(self, user_id: UserId, rates: RateLimits, group: Group) -> Decision | None:
        """Count a request of a user whose plan has these rates."""
        return await self._hit(user_subject(user_id), limits_for(rates, group))

    async def auth_request(self, host: str | None) -> Decision | None:
        """Count a request from an address by a client that is not signed in."""
        return await self._hit(address_subject(host), self._auth.for_address())

    async def shared_read(self, host: str | None) -> Decision | None:
        """Count a read of a shared branch from an address, where many may follow one link."""
        return await self._hit(address_subject(host), self._auth.for_shared())

    async def wrong_credential(self, host: str | None) -> Decision | None:
        """Count an invalid or expired token or key for the address that sent it.

        Separate from `auth_request`: a client with an expired token must be able to renew it.
        """
        return await self._hit(address_subject(host), self._auth.for_wrong_credentials())

    async def login(self, email: str) -> Decision | None:
        """Count an attempt to sign in to the account with this email, if any.

        Counted per account, so that many addresses together get no more guesses. Clients that are
        signed in already are not affected.
        """
        return await self._hit(account_subject(email), self._auth.for_account())

    async def password_reset(self, email: str) -> Decision | None:
        """Count a request for a mail to the account with this email, if any."""
        return await self._hit(account_subject(email), self._auth.for_mails())

    async def verification(self, user_id: UserId) -> Decision | None:
        """Count a request of a signed-in user for a mail."""
        return await self._hit(user_subject(user_id), self._auth.for_mails())

    async def password_guess(self, user_id: UserId) -> Decision | None:
        """Count a password that a signed-in user gives to confirm what they do."""
        return await self._hit(user_subject(user_id), self._auth.for_account())

    async def _hit(self, subject: str, limits: LimitSet) -> Decision | None:
        return None if self._limiter is None else await self._limiter.hit(subject, limits)


async def take(counter: Counter, subject: str, limits: LimitSet) -> Decision:
    """Take one from all limits of a subject, if none of them is used up.

    All are tested before any is charged. When concurrent requests use up what was left at their
    test, one limit may be charged for a request that another then refuses: a subject at its limit
    gets a little less, never more.
    """
    items = [_item(limit) for limit in limits]
    # A hit refuses by itself; the test spares the other limits.
    fits = [True]
    if len(items) > 1:
        fits = await asyncio.gather(*(counter.test(item, subject) for item in items))
    if all(fits):
        fits = await asyncio.gather(*(counter.hit(item, subject) for item in items))
    stats = await asyncio.gather(*(counter.get_window_stats(item, subject) for item in items))
    allowed = [_allowed(limit, found) for limit, found in zip(limits, stats, strict=True)]
    if all(fits):
        return min(allowed, key=lambda decision: decision.remaining)
    refusals = [_refused(decision) for decision, fit in zip(allowed, fits, strict=True) if not fit]
    return max(refusals, key=lambda decision: decision.reset_after)


def _item(limit: Limit) -> RateLimitItem:
    return RateLimitItemPerSecond(limit.amount, limit.window_s, namespace=limit.group)


def _allowed(limit: Limit, stats: WindowStats) -> Decision:
    reset_after = timedelta(seconds=stats.reset_time - time.time())
    return Decision(
        allowed=True,
        limit=limit,
        remaining=stats.remaining,
        reset_after=min(max(reset_after, _NO_TIME), limit.window),
    )


def _refused(decision: Decision) -> Decision:
    limit = decision.limit
    return Decision(
        allowed=False,
        limit=limit,
        # The library was asked a moment later, when some may have been free again.
        remaining=0,
        # A limit of zero never resets.
        reset_after=limit.window if limit.amount < 1 else decision.reset_after,
    )
