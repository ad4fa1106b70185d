"""Authentication: the caller of a request by its bearer token, and their permissions."""

from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from schema.actors import Actor, ActorType
from schema.ids import ApiKeyId, UserId
from schema.permissions import ADMINISTRATION, Permission, permissions_of
from services.auth.accounts import Account, AccountCache
from services.auth.credentials import API_KEY_PREFIX, AccessTokens, ApiKeyReader, KeyHolder
from services.auth.external_accounts import ExternalAccounts
from services.auth.sessions import LiveSessions


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated user, with the permissions of their role and API key.

    `session_id` is the sign-in of an access token; `key` is the API key, if one was used.
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

    @property
    def api_key_id(self) -> ApiKeyId | None:
        """The API key that was used, if one was: turns count towards its budget."""
        return None if self.key is None else self.key.id

    def acting(self, permission: Permission) -> Actor:
        """Return the actor for a permission.

        Administrators act as such only in administration; otherwise they reach their own
        resources, like any user.
        """
        kind = ActorType.ADMIN if permission in ADMINISTRATION else ActorType.USER
        return Actor(type=kind, user_id=self.user_id)


class _Bearer(NamedTuple):
    user_id: UserId
    session_id: UUID | None = None
    key: KeyHolder | None = None


class Callers:
    """Authenticates bearer tokens. Errors: DatabaseUnavailableError."""

    def __init__(
        self,
        tokens: AccessTokens,
        api_keys: ApiKeyReader,
        external: ExternalAccounts,
        accounts: AccountCache,
        *,
        sessions: LiveSessions,
    ) -> None:
        self._tokens = tokens
        self._sessions = sessions
        self._api_keys = api_keys
        self._external = external
        self._accounts = accounts

    async def authenticate(self, bearer_token: str) -> Caller | None:
        """Return the caller that a token belongs to, or None if it is invalid or expired.

        Errors: IssuerUnavailableError; AccountExistsError.
        """
        bearer = await self._bearer(bearer_token)
        account = None if bearer is None else await self._accounts.get(bearer.user_id)
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
        if caller.session_id is not None and not await self._sessions.is_active(caller.session_id):
            return False
        if caller.key is not None and not await self._api_keys.is_valid(caller.key.key_hash):
            return False
        return await self._accounts.get(caller.user_id) is not None

    async def _bearer(self, bearer_token: str) -> _Bearer | None:
        """Read one of three kinds of tokens: keys by their prefix, ours by our signature."""
        if bearer_token.startswith(API_KEY_PREFIX):
            key = await self._api_keys.read(bearer_token)
            return None if key is None else _Bearer(key.user_id, key=key)
        claims = self._tokens.read(bearer_token)
        if claims is not None:
            session_id = claims.session_id
            if session_id is not None and not await self._sessions.is_active(session_id):
                return None
            return _Bearer(claims.user_id, session_id=session_id)
        user_id = await self._external.read(bearer_token)
        return None if user_id is None else _Bearer(user_id)
