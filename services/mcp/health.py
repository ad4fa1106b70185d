"""Owns telling administrators how servers do whose tools are called: on changes, not on calls."""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog

from schema.mcp_servers import McpServerStatus
from schema.tables import McpServerRow
from schema.tables.columns import utc_now
from services.database import DatabaseUnavailableError
from services.mcp.configured import ConfiguredServers
from services.mcp.words import bounded

_log = structlog.get_logger(__name__)

_PAUSE_S: Final = 5.0
"""Between two notes about a server that works now and again."""


@dataclass(frozen=True, slots=True)
class _Note:
    row: McpServerRow
    status: McpServerStatus
    problem: str | None
    at: datetime


class ServerHealth:
    """Stores how servers do. What can't be stored is logged, and fails no call."""

    def __init__(self, servers: ConfiguredServers, *, pause_s: float = _PAUSE_S) -> None:
        self._servers = servers
        self._pause_s = pause_s
        self._told: dict[str, _Note] = {}
        self._waiting: dict[str, _Note] = {}
        self._writing: dict[str, asyncio.Task[None]] = {}

    def works(self, row: McpServerRow) -> None:
        """Note that a server answers, if that is news."""
        if self._status_of(row) is McpServerStatus.FAILING:
            self._tell(row, McpServerStatus.HEALTHY, None)

    def fails(self, row: McpServerRow, problem: str) -> None:
        """Note what is wrong with a server, if that is news."""
        if self._status_of(row) is not McpServerStatus.FAILING:
            self._tell(row, McpServerStatus.FAILING, bounded(problem))

    async def close(self) -> None:
        """Write nothing more."""
        for task in list(self._writing.values()):
            task.cancel()
        await asyncio.gather(*self._writing.values(), return_exceptions=True)

    def _status_of(self, row: McpServerRow) -> McpServerStatus:
        """Return how it does as far as anybody knows: a refresh may have found out since."""
        told = self._told.get(row.name)
        if told is None or told.row.updated_at != row.updated_at:
            return McpServerStatus(row.status)
        is_latest = row.checked_at is None or row.checked_at <= told.at
        return told.status if is_latest else McpServerStatus(row.status)

    def _tell(self, row: McpServerRow, status: McpServerStatus, problem: str | None) -> None:
        note = _Note(row, status, problem, utc_now())
        self._told[row.name] = self._waiting[row.name] = note
        if row.name not in self._writing:
            writing = asyncio.create_task(self._write(row.name))
            self._writing[row.name] = writing
            writing.add_done_callback(lambda _: self._writing.pop(row.name, None))

    async def _write(self, name: str) -> None:
        while (note := self._waiting.pop(name, None)) is not None:
            try:
                await self._servers.note(note.row, note.status, note.problem, note.at)
            except DatabaseUnavailableError:
                _log.warning("mcp_health_not_stored", server=name, status=note.status)
            await asyncio.sleep(self._pause_s)
