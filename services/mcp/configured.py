"""Owns what the pool knows of the servers that are configured, as of moments ago."""

from datetime import datetime
from typing import Final

from cachetools import TTLCache
from sqlalchemy import ColumnElement, update
from sqlmodel import col

from schema.actors import SERVICE
from schema.mcp_servers import McpServerStatus
from schema.tables import McpServerRow
from services.database import Database

_MANY: Final = 1_000


class ConfiguredServers:
    """Reads servers, and notes how they do. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, *, lifetime_s: float) -> None:
        self._database = database
        self._known: TTLCache[str, McpServerRow | None] = TTLCache(_MANY, lifetime_s)

    async def get(self, name: str) -> McpServerRow | None:
        """Return a server that is switched on, with its secrets."""
        try:
            return self._known[name]
        except KeyError:
            return await self._read(name)

    async def _read(self, name: str) -> McpServerRow | None:
        # Workers connect in nobody's name: what they read are secrets that no user may see.
        async with self._database.transaction(SERVICE) as session:
            row = await session.get(McpServerRow, name)
        found = row if row is not None and row.enabled else None
        self._known[name] = found
        return found

    async def note(
        self, row: McpServerRow, status: McpServerStatus, problem: str | None, at: datetime
    ) -> None:
        """Store how a server does, if it is still configured as it was."""
        stored = (
            update(McpServerRow)
            .where(*_as_configured(row))
            .values(status=status, problem=problem, checked_at=at)
        )
        async with self._database.transaction(SERVICE) as session:
            await session.exec(stored)
        self._known.pop(row.name, None)


def _as_configured(row: McpServerRow) -> tuple[ColumnElement[bool], ...]:
    return col(McpServerRow.name) == row.name, col(McpServerRow.updated_at) == row.updated_at
