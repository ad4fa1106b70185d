"""Owns telling whom an API key speaks for, and that it was used; making them is not its.

Cached for a few seconds, as accounts are, or until it is forgotten (invalidation.py).
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from schema.actors import SERVICE
from schema.ids import UserId
from schema.permissions import Permission
from services.auth.ttl_cache import AsyncTtlCache
from services.database import Database

API_KEY_START: Final = "evk_"
_REMEMBERED: Final = 10_000

# A key is noted as used once a minute at most: a write for each request would cost more than it
# tells.
_READ: Final = """
WITH found AS (
    SELECT id, user_id, permissions, expires_at, last_used_at FROM api_keys
    WHERE key_hash = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
), used AS (
    UPDATE api_keys SET last_used_at = now() FROM found
    WHERE api_keys.id = found.id
      AND (found.last_used_at IS NULL OR found.last_used_at < now() - interval '1 minute')
)
SELECT user_id, permissions, expires_at FROM found
"""


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """Whom a key speaks for, and what it may be used for."""

    key_hash: bytes
    user_id: UserId
    permissions: frozenset[Permission]
    expires_at: datetime | None


class ApiKeyReader:
    """Reads API keys. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, *, lifetime_s: float) -> None:
        self._database = database
        self._known = AsyncTtlCache(self._look_up, most=_REMEMBERED, lifetime_s=lifetime_s)

    async def read(self, key: str) -> KeyHolder | None:
        """Return the holder of a key, or None where it is unknown, revoked or too old."""
        return await self._holder(hash_of(key))

    async def holds(self, key_hash: bytes) -> bool:
        """Say whether a key that was good still is."""
        return await self._holder(key_hash) is not None

    def forget(self, key_hash: bytes) -> None:
        """Ask anew at the next request to this process that comes with the key."""
        self._known.forget(key_hash)

    def forget_all(self) -> None:
        """Ask anew at the next request to this process that comes with any key."""
        self._known.forget_all()

    async def _holder(self, key_hash: bytes) -> KeyHolder | None:
        holder = await self._known.of(key_hash)
        return None if holder is None or _is_over(holder) else holder

    async def _look_up(self, key_hash: bytes) -> KeyHolder | None:
        async with self._database.statements(SERVICE) as connection:
            found = await connection.fetchrow(_READ, key_hash)
        if found is None:
            return None
        names = set(found["permissions"])
        return KeyHolder(
            key_hash=key_hash,
            user_id=UserId(found["user_id"]),
            permissions=frozenset(known for known in Permission if known.value in names),
            expires_at=found["expires_at"],
        )


def hash_of(key: str) -> bytes:
    """Return what is stored of a key: one of 256 random bits needs no slow hash."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _is_over(holder: KeyHolder) -> bool:
    return holder.expires_at is not None and holder.expires_at <= datetime.now(UTC)
