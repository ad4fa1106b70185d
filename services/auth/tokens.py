"""Owns access tokens: short-lived, signed by us, checked without asking anyone."""

import time
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

import jwt
from cachetools import LRUCache

from schema.ids import UserId
from services.setup_errors import SetupError

_ALGORITHM: Final = "HS256"
_ISSUER: Final = "everturn"
_SHORTEST_SECRET: Final = 32
_REMEMBERED: Final = 10_000
"""Tokens that are known to be ours: to check a signature takes a twentieth of a short request."""


class WeakSecretError(SetupError):
    """The signing secret is missing, or too short to resist guessing."""

    def __init__(self) -> None:
        super().__init__(
            f"EVERTURN_AUTH_SECRET has to be set, to at least {_SHORTEST_SECRET} random "
            "characters: python -c 'import secrets; print(secrets.token_urlsafe(48))'"
        )


class AccessClaims(NamedTuple):
    """What a token says: whom it speaks for, and in which sign-in it was issued."""

    user_id: UserId
    session_id: UUID | None


class _Known(NamedTuple):
    """A token that was found to be ours. Units: `expires_at` is in seconds since 1970."""

    claims: AccessClaims
    expires_at: int


class AccessTokens:
    """Issues and reads access tokens.

    Errors: WeakSecretError from the constructor.
    Source: RFC 7519; HMAC with SHA-256.
    """

    def __init__(self, secret: str, *, lifetime: timedelta) -> None:
        if len(secret) < _SHORTEST_SECRET:
            raise WeakSecretError
        self._secret = secret
        self.lifetime = lifetime
        self._known: LRUCache[str, _Known] = LRUCache(_REMEMBERED)

    def issue(self, user_id: UserId, *, session_id: UUID | None = None) -> str:
        """Return a token that speaks for the user until its lifetime is over."""
        now = datetime.now(UTC)
        claims: dict[str, object] = {
            "iss": _ISSUER,
            "sub": str(user_id),
            "iat": now,
            "exp": now + self.lifetime,
        }
        if session_id is not None:
            claims["sid"] = str(session_id)
        return jwt.encode(claims, self._secret, algorithm=_ALGORITHM)

    def read(self, token: str) -> AccessClaims | None:
        """Return what a token says, or None if it is not ours, not whole or too old."""
        known = self._known.get(token)
        if known is None:
            known = self._verified(token)
            if known is None:
                return None
            self._known[token] = known
        return known.claims if time.time() < known.expires_at else None

    def _verified(self, token: str) -> _Known | None:
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[_ALGORITHM],
                issuer=_ISSUER,
                options={"require": ["exp", "iat", "sub", "iss"]},
            )
            session_id = claims.get("sid")
            read = AccessClaims(
                user_id=UserId(UUID(claims["sub"])),
                session_id=None if session_id is None else UUID(session_id),
            )
            return _Known(read, expires_at=int(claims["exp"]))
        except (jwt.InvalidTokenError, ValueError):
            return None
