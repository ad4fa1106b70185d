"""Owns telling from a bearer token who calls, and what they may do."""

from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from schema.actors import Actor, ActorType
from schema.ids import UserId
from schema.permissions import ADMINISTRATION, Permission, permissions_of
from services.auth.accounts import Account, AccountCache
from services.auth.api_keys import API_KEY_START, ApiKeyReader, KeyHolder
from services.auth.live_sessions import LiveSessions
from services.auth.outside_accounts import OutsideAccounts
from services.auth.tokens import AccessTokens


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody signed in, with what their role and the key that they use let them do.

    `session_id` names the sign-in with a password that the token is of, if it is of one; `key` is
    the API key, if one was used instead.
    """

    user_id: UserId
    permissions: frozenset[Permission]
    account: Account
    session_id: UUID | None = None
    key: KeyHolder | None = None

    @property
    def by_key(self) -> bool:
        """Whether an API key was used."""
        return self.key is not None

    def acting(self, permission: Permission) -> Actor:
        """Return the actor for what the permission is about.

        An administrator is one in administration alone; in all else their own things are what
        they reach, as everybody's.
        """
        kind = ActorType.ADMIN if permission in ADMINISTRATION else ActorType.USER
        return Actor(type=kind, user_id=self.user_id)


class _Bearer(NamedTuple):
    user_id: UserId
    session_id: UUID | None = None
    key: KeyHolder | None = None


class Callers:
    """Knows callers by their bearer tokens. Errors: DatabaseUnavailableError."""

    def __init__(
        self,
        tokens: AccessTokens,
        api_keys: ApiKeyReader,
        outside: OutsideAccounts,
        accounts: AccountCache,
        *,
        sessions: LiveSessions,
    ) -> None:
        self._tokens = tokens
        self._sessions = sessions
        self._api_keys = api_keys
        self._outside = outside
        self._accounts = accounts

    async def authenticate(self, bearer_token: str) -> Caller | None:
        """Return the caller that a token belongs to, or None if it is invalid or expired.

        Errors: IssuerUnavailableError; AccountExistsError.
        """
        bearer = await self._bearer(bearer_token)
        account = None if bearer is None else await self._accounts.of(bearer.user_id)
        if bearer is None or account is None:
            return None
        key = bearer.key
        return Caller(
            user_id=bearer.user_id,
            permissions=permissions_of(account.role, key=None if key is None else key.permissions),
            account=account,
            session_id=bearer.session_id,
            key=key,
        )

    async def is_signed_in(self, caller: Caller) -> bool:
        """Return whether an authenticated caller still is: not signed out, disabled or deleted."""
        if caller.session_id is not None and not await self._sessions.holds(caller.session_id):
            return False
        if caller.key is not None and not await self._api_keys.holds(caller.key.key_hash):
            return False
        return await self._accounts.of(caller.user_id) is not None

    async def _bearer(self, bearer_token: str) -> _Bearer | None:
        """Tell the three kinds of tokens apart: keys by their start, ours by our signature."""
        if bearer_token.startswith(API_KEY_START):
            key = await self._api_keys.read(bearer_token)
            return None if key is None else _Bearer(key.user_id, key=key)
        claims = self._tokens.read(bearer_token)
        if claims is not None:
            session_id = claims.session_id
            if session_id is not None and not await self._sessions.holds(session_id):
                return None
            return _Bearer(claims.user_id, session_id=session_id)
        user_id = await self._outside.read(bearer_token)
        return None if user_id is None else _Bearer(user_id)
