"""Owns knowing whether the sign-in that an access token came of still holds.

Cached for a few seconds, as accounts are, or until it is forgotten (invalidation.py).
"""

from typing import Final, Literal
from uuid import UUID

from schema.actors import SERVICE
from services.auth.ttl_cache import AsyncTtlCache
from services.database import Database

_REMEMBERED: Final = 50_000

_HOLDS: Final = """
SELECT EXISTS (
    SELECT FROM refresh_tokens
    WHERE family_id = $1 AND revoked_at IS NULL AND expires_at > now()
)
"""


class LiveSessions:
    """Looks sign-ins up. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, *, lifetime_s: float) -> None:
        self._database = database
        self._live = AsyncTtlCache(self._read, most=_REMEMBERED, lifetime_s=lifetime_s)

    async def holds(self, session_id: UUID) -> bool:
        """Say whether a sign-in has not been ended."""
        return await self._live.of(session_id) is not None

    def forget(self, session_id: UUID) -> None:
        """Ask anew at the session's next request to this process."""
        self._live.forget(session_id)

    def forget_all(self) -> None:
        """Ask anew at the next request of each session to this process."""
        self._live.forget_all()

    async def _read(self, session_id: UUID) -> Literal[True] | None:
        async with self._database.statements(SERVICE) as connection:
            holds = await connection.fetchval(_HOLDS, session_id)
        return True if holds else None
