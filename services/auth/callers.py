"""Owns telling from a bearer token who calls, and what they may do."""

from dataclasses import dataclass
from typing import Final

from schema.actors import Actor, ActorType
from schema.ids import UserId
from schema.permissions import ADMINISTRATION, Permission, permissions_of
from services.auth.api_keys import API_KEY_START, ApiKeyReader
from services.auth.standing import Standing, Standings
from services.auth.tokens import AccessTokens

_NOTHING_LEFT_OUT: Final = frozenset(Permission)


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody signed in, with what their role and the key that they use let them do."""

    user_id: UserId
    permissions: frozenset[Permission]
    standing: Standing

    def acting(self, permission: Permission) -> Actor:
        """Return the actor for what the permission is about.

        An administrator is one in administration alone; in all else their own things are what
        they reach, as everybody's.
        """
        kind = ActorType.ADMIN if permission in ADMINISTRATION else ActorType.USER
        return Actor(type=kind, user_id=self.user_id)


class Callers:
    """Knows callers by their bearer tokens. Errors: DatabaseUnavailableError."""

    def __init__(self, tokens: AccessTokens, api_keys: ApiKeyReader, standings: Standings) -> None:
        self._tokens = tokens
        self._api_keys = api_keys
        self._standings = standings

    async def of(self, bearer_token: str) -> Caller | None:
        """Return whom a token speaks for, or None where it speaks for nobody any more."""
        allowed: frozenset[Permission] = _NOTHING_LEFT_OUT
        if bearer_token.startswith(API_KEY_START):
            key = await self._api_keys.read(bearer_token)
            if key is None:
                return None
            user_id, allowed = key.user_id, key.permissions
        else:
            read = self._tokens.read(bearer_token)
            if read is None:
                return None
            user_id = read
        standing = await self._standings.of(user_id)
        if standing is None:
            return None
        return Caller(user_id, permissions_of(standing.role) & allowed, standing)
