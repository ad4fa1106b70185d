"""Owns one server's place in the pool: who connects, who waits, and when it is tried again.

A server that can't be reached is not asked by each call: they fail at once until it is time to
try again, a second after the first failure, and a minute at most after later ones.
"""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeAlias

from schema.tables import McpServerRow
from services.mcp.errors import CallLostError, McpServerError
from services.mcp.health import ServerHealth
from services.tools.secrets import UnreadableSecretError

if TYPE_CHECKING:
    from services.mcp.connection import Connection

_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 60.0
_YOUNG_S: Final = 5.0
_DRAIN_S: Final = 30.0
_MOST_DOUBLINGS: Final = 16

Connect: TypeAlias = Callable[[McpServerRow, Callable[[], None]], Awaitable["Connection"]]
"""Opens a connection, and says by the callback when the server ends it."""


class ServerConnection:
    """The connection to one server, as it is configured in `row`."""

    def __init__(self, row: McpServerRow, connect: Connect, health: ServerHealth) -> None:
        self.row = row
        self.configured_at = row.updated_at
        self._connect = connect
        self._health = health
        self._current: Connection | None = None
        self._opening: asyncio.Task[Connection] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._failures = 0
        self._retry_at = 0.0
        self._problem = ""

    async def connection(self) -> "Connection":
        """Return an open connection, after whoever opens it already.

        Errors: CallLostError.
        """
        if self.open_connection is not None:
            return self.open_connection
        if self._opening is None:
            self._refuse_too_early()
            self._opening = asyncio.create_task(self._open())
            self._opening.add_done_callback(self._opened)
        opening = self._opening
        # It goes on for the others where this one is given up.
        await asyncio.wait({opening})
        if opening.cancelled():
            raise CallLostError("It was switched off or configured anew.", reached=False)
        return opening.result()

    @property
    def open_connection(self) -> "Connection | None":
        """The connection, if there is one now."""
        current = self._current
        return None if current is None or current.is_over else current

    @property
    def idle_s(self) -> float:
        """How long nobody has used it. Units: seconds."""
        current = self.open_connection
        if self._opening is not None or (current is not None and current.is_in_use):
            return 0.0
        return monotonic() - (self._retry_at if current is None else current.used_at)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing left to close."""
        return self._current is None and self._opening is None and not self._leaving

    def answered(self) -> None:
        """Note that the server answered a call."""
        self._failures = 0
        self._health.works(self.row)

    def failed(self, problem: str) -> None:
        """Note that the server failed a call, but not the connection."""
        self._health.fails(self.row, problem)

    def drop(self, connection: "Connection") -> None:
        """Make the next call connect anew; those under way may still get their answers."""
        if self._current is connection:
            self._current = None
            self._leave(connection)

    def give_up(self, connection: "Connection", problem: str) -> None:
        """Drop a connection that leads nowhere, and wait before the next one."""
        if self._current is connection:
            self.drop(connection)
            self._fail(problem)

    def retire(self) -> None:
        """Let the calls under way end, and close what there is then."""
        if self._opening is not None:
            self._opening.cancel()
        if self._current is not None:
            self.drop(self._current)

    async def close(self) -> None:
        """Close everything now; calls under way fail."""
        current, self._current = self._current, None
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait({self._opening})
        for task in list(self._leaving):
            task.cancel()
        if current is not None:
            await current.close()
        await asyncio.gather(*self._leaving, return_exceptions=True)

    async def _open(self) -> "Connection":
        try:
            self._current = await self._connect(self.row, self._lost)
        except (McpServerError, UnreadableSecretError) as error:
            self._fail(str(error))
            raise CallLostError(
                self._problem, reached=False, retry_after_s=self._retry_at - monotonic()
            ) from error
        return self._current

    def _opened(self, opening: "asyncio.Task[Connection]") -> None:
        self._opening = None
        if not opening.cancelled():
            opening.exception()  # seen, also where nobody waits any more

    def _refuse_too_early(self) -> None:
        left = self._retry_at - monotonic()
        if left > 0:
            raise CallLostError(self._problem, reached=False, retry_after_s=left)

    def _lost(self) -> None:
        """Note that the server ended the connection. One that rests may do so."""
        current, self._current = self._current, None
        if current is None:
            return
        if current.is_in_use or monotonic() - current.opened_at < _YOUNG_S:
            # After one crash it is started again at once.
            self._fail(current.ended_by or "It closed the connection.", free_failures=1)

    def _fail(self, problem: str, *, free_failures: int = 0) -> None:
        self._problem = problem
        self._failures += 1
        doublings = self._failures - free_failures - 1
        pause_s = 0.0 if doublings < 0 else _FIRST_PAUSE_S * 2.0 ** min(doublings, _MOST_DOUBLINGS)
        self._retry_at = monotonic() + min(pause_s, _LONGEST_PAUSE_S)
        self._health.fails(self.row, problem)

    def _leave(self, connection: "Connection") -> None:
        leaving = asyncio.create_task(_closed_at_rest(connection))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)


async def _closed_at_rest(connection: "Connection") -> None:
    try:
        await asyncio.wait_for(connection.rest(), _DRAIN_S)
    except TimeoutError:
        pass
    finally:
        await connection.close()
