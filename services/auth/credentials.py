"""Credentials: passwords by Argon2id, access tokens signed by us, API keys.

Access tokens are short-lived and verified without a lookup. API keys are created by
services/users/api_keys.py.

    WeakSecretError    the signing secret is missing, or too short
"""

import asyncio
import hashlib
import os
import sys
import threading
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

import asyncpg
import jwt
from cachetools import LRUCache
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from schema.actors import SERVICE
from schema.ids import ApiKeyId, UserId
from schema.permissions import Permission
from services.auth.ttl_cache import AsyncTtlCache
from services.database import Database, GatheredReads
from services.setup_errors import SetupError

_HASHES: Final = PasswordHash((Argon2Hasher(),))
_NICENESS: Final = 3

_ALGORITHM: Final = "HS256"
OWN_ISSUER: Final = "everturn"
_MIN_SECRET_LENGTH: Final = 32
_MAX_CACHED_TOKENS: Final = 10_000
"""Verified tokens: to check a signature takes a twentieth of a short request."""

API_KEY_PREFIX: Final = "evk_"
_MAX_CACHED_KEYS: Final = 10_000

# The use of a key is recorded at most once a minute: a write for each request is not worth its
# cost.
_READ_KEYS: Final = """
WITH found AS (
    SELECT id, key_hash, user_id, permissions, expires_at FROM api_keys
    WHERE key_hash = ANY($1::bytea[])
      AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
), stale AS (
    SELECT api_keys.id FROM api_keys JOIN found USING (id)
    WHERE last_used_at IS NULL OR last_used_at < now() - interval '1 minute'
    FOR NO KEY UPDATE OF api_keys SKIP LOCKED
), used AS (
    UPDATE api_keys SET last_used_at = now() FROM stale WHERE api_keys.id = stale.id
)
SELECT id, key_hash, user_id, permissions, expires_at FROM found
"""


class Passwords:
    """Hashes and verifies passwords. Hashing takes tens of milliseconds of CPU on purpose.

    One at a time, since each runs on several cores by itself: a crowd that signs in would keep
    everyone else's requests from running.
    """

    def __init__(self) -> None:
        self._decoy: str | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hashing", initializer=_give_way)

    async def hash(self, password: str) -> str:
        """Return the hash of a password, salt and parameters included."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, _HASHES.hash, password)

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Return whether the password matches the hash.

        Without a hash it takes as long and returns False, so that the time does not reveal which
        emails have accounts.
        """
        if password_hash is None and self._decoy is None:
            self._decoy = await self.hash("decoy")
        known = password_hash or self._decoy or ""
        loop = asyncio.get_running_loop()
        is_right = await loop.run_in_executor(self._thread, _HASHES.verify, password, known)
        return is_right and password_hash is not None


def _give_way() -> None:
    """Lower the priority of this thread; those that it starts inherit it."""
    if sys.platform == "linux":  # elsewhere it would be that of the process
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


class WeakSecretError(SetupError):
    """The signing secret is missing, or too short to resist guessing."""

    def __init__(self) -> None:
        super().__init__(
            f"EVERTURN_AUTH_SECRET must have at least {_MIN_SECRET_LENGTH} random characters: "
            "python -c 'import secrets; print(secrets.token_urlsafe(48))'"
        )


class AccessClaims(NamedTuple):
    """The claims of a token: its user, and the sign-in in which it was issued."""

    user_id: UserId
    session_id: UUID | None


class _VerifiedToken(NamedTuple):
    """A token with a valid signature. Units: `expires_at` is in seconds since 1970."""

    claims: AccessClaims
    expires_at: int


class AccessTokens:
    """Issues and reads access tokens.

    Errors: WeakSecretError from the constructor.
    Source: RFC 7519; HMAC with SHA-256.
    """

    def __init__(self, secret: str, *, lifetime: timedelta) -> None:
        if len(secret) < _MIN_SECRET_LENGTH:
            raise WeakSecretError
        self._secret = secret
        self.lifetime = lifetime
        self._verified_tokens: LRUCache[str, _VerifiedToken] = LRUCache(_MAX_CACHED_TOKENS)

    def issue(self, user_id: UserId, *, session_id: UUID | None = None) -> str:
        """Return a token for the user, valid for its lifetime."""
        now = datetime.now(UTC)
        claims: dict[str, object] = {
            "iss": OWN_ISSUER,
            "sub": str(user_id),
            "iat": now,
            "exp": now + self.lifetime,
        }
        if session_id is not None:
            claims["sid"] = str(session_id)
        return jwt.encode(claims, self._secret, algorithm=_ALGORITHM)

    def read(self, token: str) -> AccessClaims | None:
        """Return the claims of a token, or None if it is not ours, malformed or expired."""
        verified = self._verified_tokens.get(token)
        if verified is None:
            verified = self._verify(token)
            if verified is None:
                return None
            self._verified_tokens[token] = verified
        return verified.claims if time.time() < verified.expires_at else None

    def _verify(self, token: str) -> _VerifiedToken | None:
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[_ALGORITHM],
                issuer=OWN_ISSUER,
                options={"require": ["exp", "iat", "sub", "iss"]},
            )
            session_id = claims.get("sid")
            verified = AccessClaims(
                user_id=UserId(UUID(claims["sub"])),
                session_id=None if session_id is None else UUID(session_id),
            )
            return _VerifiedToken(verified, expires_at=int(claims["exp"]))
        except (jwt.InvalidTokenError, ValueError):
            return None


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """The user of a key, and the permissions that it has."""

    id: ApiKeyId
    key_hash: bytes
    user_id: UserId
    permissions: frozenset[Permission]
    expires_at: datetime | None


class ApiKeyReader:
    """Looks up API keys, cached like accounts. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, *, lifetime_s: float) -> None:
        self._database = database
        reads = GatheredReads(self._look_up)
        self._cache = AsyncTtlCache(reads.get, max_size=_MAX_CACHED_KEYS, lifetime_s=lifetime_s)

    async def read(self, key: str) -> KeyHolder | None:
        """Return the holder of a key, or None if it is unknown, revoked or expired."""
        return await self._holder(hash_of_key(key))

    async def is_valid(self, key_hash: bytes) -> bool:
        """Return whether a key is still valid."""
        return await self._holder(key_hash) is not None

    def invalidate(self, key_hash: bytes) -> None:
        """Read the key again at its next use in this process."""
        self._cache.invalidate(key_hash)

    def invalidate_all(self) -> None:
        """Read each key again at its next use in this process."""
        self._cache.invalidate_all()

    async def _holder(self, key_hash: bytes) -> KeyHolder | None:
        holder = await self._cache.get(key_hash)
        return None if holder is None or _has_expired(holder) else holder

    async def _look_up(self, key_hashes: Collection[bytes]) -> dict[bytes, KeyHolder]:
        async with self._database.statements(SERVICE) as connection:
            rows = await connection.fetch(_READ_KEYS, key_hashes)
        return {row["key_hash"]: _holder(row) for row in rows}


def _holder(row: asyncpg.Record) -> KeyHolder:
    names = set(row["permissions"])
    return KeyHolder(
        id=ApiKeyId(row["id"]),
        key_hash=row["key_hash"],
        user_id=UserId(row["user_id"]),
        permissions=frozenset(permission for permission in Permission if permission.value in names),
        expires_at=row["expires_at"],
    )


def hash_of_key(key: str) -> bytes:
    """Return the stored hash of a key: 256 random bits need no slow hash."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _has_expired(holder: KeyHolder) -> bool:
    return holder.expires_at is not None and holder.expires_at <= datetime.now(UTC)
