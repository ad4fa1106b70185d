"""Owns telling a turn's clients how far a tool has come: the newest word, now and then."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self

from services.tools.definition import ToolProgress

_PAUSE_S: Final = 0.5


class ProgressTeller:
    """Takes reports of any number, and tells the newest at most twice a second while it is open."""

    def __init__(self, tell: Callable[[ToolProgress], Awaitable[None]]) -> None:
        self._tell = tell
        self._newest: ToolProgress | None = None
        self._telling: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        """Begin to take reports."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Tell nothing any more: what follows is the call's end."""
        if self._telling is not None:
            self._telling.cancel()

    def report(self, progress: ToolProgress) -> None:
        """Take a report; returns at once."""
        self._newest = progress
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell_newest())

    async def _tell_newest(self) -> None:
        while self._newest is not None:
            newest, self._newest = self._newest, None
            await self._tell(newest)
            await asyncio.sleep(_PAUSE_S)
