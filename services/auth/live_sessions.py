"""Owns knowing whether the sign-in that an access token came of still holds.

Remembered for moments, as standings are: a sign-out counts within them on every process, and at
once on the one that heard of it.
"""

from typing import Final
from uuid import UUID

from cachetools import TTLCache

from schema.actors import SERVICE
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
        self._live: TTLCache[UUID, bool] = TTLCache(_REMEMBERED, lifetime_s)
        self._times_forgotten = 0

    async def holds(self, session_id: UUID) -> bool:
        """Say whether a sign-in has not been ended."""
        if session_id in self._live:
            return True
        times_forgotten = self._times_forgotten
        async with self._database.statements(SERVICE) as connection:
            holds = bool(await connection.fetchval(_HOLDS, session_id))
        # What was read before a sign-out is not remembered after it.
        if holds and times_forgotten == self._times_forgotten:
            self._live[session_id] = True
        return holds

    def forget(self, session_id: UUID) -> None:
        """Ask anew at the session's next request to this process."""
        self._times_forgotten += 1
        self._live.pop(session_id, None)
