"""Owns what follows when a server says that its tools have changed: they are listed anew, soon."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import structlog

from schema.mcp_servers import RefreshMcpServerInput
from services.database import DatabaseUnavailableError

_log = structlog.get_logger(__name__)

_SOON_S: Final = 0.5
"""Servers say it once for each tool of many."""
_PAUSE_S: Final = 10.0

Refresh: TypeAlias = Callable[[RefreshMcpServerInput], Awaitable[object]]


class ToolChanges:
    """Collects what servers say, and refreshes each of them at most every ten seconds."""

    def __init__(self, *, soon_s: float = _SOON_S, pause_s: float = _PAUSE_S) -> None:
        self._soon_s = soon_s
        self._pause_s = pause_s
        self._refresh: Refresh | None = None
        self._changed: dict[str, RefreshMcpServerInput] = {}
        self._under_way: dict[str, asyncio.Task[None]] = {}

    def follow_with(self, refresh: Refresh) -> None:
        """Say what lists the tools of a server anew."""
        self._refresh = refresh

    def note(self, server: RefreshMcpServerInput) -> None:
        """Take in that a server's tools have changed."""
        self._changed[server.name] = server
        if server.name not in self._under_way:
            following = asyncio.create_task(self._follow(server.name))
            self._under_way[server.name] = following
            following.add_done_callback(lambda _: self._under_way.pop(server.name, None))

    async def close(self) -> None:
        """Follow nothing more."""
        for task in list(self._under_way.values()):
            task.cancel()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)

    async def _follow(self, name: str) -> None:
        while name in self._changed:
            await asyncio.sleep(self._soon_s)
            server = self._changed.pop(name)
            try:
                if self._refresh is not None:
                    await self._refresh(server)
            except DatabaseUnavailableError:
                # The next sweep lists them.
                _log.warning("mcp_change_not_followed", server=name)
            await asyncio.sleep(self._pause_s)
