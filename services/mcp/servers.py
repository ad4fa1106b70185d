"""One MCP server as a worker sees it: its configuration, its health, and its connection.

A server that can't be reached is not contacted by each call: calls fail at once until it is time
for the next attempt, a second after the first failure, and at most 15 seconds after later ones.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeAlias

import structlog
from cachetools import TTLCache
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import SERVICE
from schema.alerts import AlertKind, AlertSeverity
from schema.audit import ResourceType
from schema.mcp_servers import McpServerStatus
from schema.tables import McpServerRow
from schema.tables.columns import utc_now
from services.alerts import OnAlert, raise_alert
from services.database import Database, DatabaseUnavailableError
from services.mcp.errors import CallLostError, McpServerError, Outlook, bounded
from services.tools.secrets import UnreadableSecretError

if TYPE_CHECKING:
    from services.mcp.connection import Connection

_log = structlog.get_logger(__name__)

_MAX_CACHED: Final = 1_000
_WRITE_PAUSE_S: Final = 5.0
"""Between two writes about a server that works only now and then."""
_FIRST_PAUSE_S: Final = 1.0
_MAX_PAUSE_S: Final = 15.0
_YOUNG_S: Final = 5.0
_DRAIN_S: Final = 30.0
_MAX_DOUBLINGS: Final = 16


async def set_status(
    session: AsyncSession,
    row: McpServerRow,
    status: McpServerStatus,
    problem: str | None,
    *,
    at: datetime,
) -> bool:
    """Set the status of a server, whose row is locked; return whether that raised an alert.

    One is raised where a healthy server fails, at most one an hour of each server.
    """
    has_broken = row.status == McpServerStatus.HEALTHY and status is McpServerStatus.FAILING
    row.status, row.problem, row.checked_at = status, problem, at
    if not has_broken:
        return False
    raised = await raise_alert(
        session,
        AlertKind.MCP_SERVER_FAILED,
        AlertSeverity.WARNING,
        resource=(ResourceType.MCP_SERVER, row.name),
        # Not the problem, which may quote the server.
        details={"transport": row.transport},
        dedup_key=f"mcp_server:{row.name}:{at:%Y-%m-%dT%H}",
    )
    return raised is not None


class ServerConfigurations:
    """Rows of enabled servers, cached for seconds. Errors: DatabaseUnavailableError."""

    def __init__(
        self, database: Database, *, lifetime_s: float, on_alert: OnAlert = lambda: None
    ) -> None:
        self._database = database
        self._on_alert = on_alert
        self._cache: TTLCache[str, McpServerRow | None] = TTLCache(_MAX_CACHED, lifetime_s)

    async def get(self, name: str) -> McpServerRow | None:
        """Return an enabled server, with its secrets."""
        try:
            return self._cache[name]
        except KeyError:
            return await self._read(name)

    async def _read(self, name: str) -> McpServerRow | None:
        # As the service: the row holds secrets that no user may read.
        async with self._database.transaction(SERVICE) as session:
            row = await session.get(McpServerRow, name)
        found = row if row is not None and row.enabled else None
        self._cache[name] = found
        return found

    async def store_status(
        self, row: McpServerRow, status: McpServerStatus, problem: str | None, at: datetime
    ) -> None:
        """Store a server's status, unless it was reconfigured in the meantime."""
        raised = False
        async with self._database.transaction(SERVICE) as session:
            stored = await session.get(McpServerRow, row.name, with_for_update=True)
            if stored is not None and stored.updated_at == row.updated_at:
                raised = await set_status(session, stored, status, problem, at=at)
        if raised:
            self._on_alert()
        self._cache.pop(row.name, None)


@dataclass(frozen=True, slots=True)
class _Report:
    row: McpServerRow
    status: McpServerStatus
    problem: str | None
    at: datetime


class ServerHealth:
    """Stores changes of servers' status. What can't be stored is logged, and fails no call."""

    def __init__(
        self, configurations: ServerConfigurations, *, pause_s: float = _WRITE_PAUSE_S
    ) -> None:
        self._configurations = configurations
        self._pause_s = pause_s
        self._latest: dict[str, _Report] = {}
        self._unwritten: dict[str, _Report] = {}
        self._writing: dict[str, asyncio.Task[None]] = {}

    def report_healthy(self, row: McpServerRow) -> None:
        """Store that a server answers, if it was failing."""
        if self._known_of(row)[0] is McpServerStatus.FAILING:
            self._report(row, McpServerStatus.HEALTHY, None)

    def report_failing(self, row: McpServerRow, problem: str) -> None:
        """Store what is wrong with a server, unless that is known."""
        problem = bounded(problem)
        if self._known_of(row) != (McpServerStatus.FAILING, problem):
            self._report(row, McpServerStatus.FAILING, problem)

    async def close(self) -> None:
        """Stop writing."""
        for task in list(self._writing.values()):
            task.cancel()
        await asyncio.gather(*self._writing.values(), return_exceptions=True)

    def _known_of(self, row: McpServerRow) -> tuple[McpServerStatus, str | None]:
        """Return the latest status and problem known here: a refresh may have stored later ones."""
        latest = self._latest.get(row.name)
        is_same = latest is not None and latest.row.updated_at == row.updated_at
        if latest and is_same and (row.checked_at is None or row.checked_at <= latest.at):
            return latest.status, latest.problem
        return McpServerStatus(row.status), row.problem

    def _report(self, row: McpServerRow, status: McpServerStatus, problem: str | None) -> None:
        report = _Report(row, status, problem, utc_now())
        self._latest[row.name] = self._unwritten[row.name] = report
        if row.name not in self._writing:
            writing = asyncio.create_task(self._write(row.name))
            self._writing[row.name] = writing
            writing.add_done_callback(lambda _: self._writing.pop(row.name, None))

    async def _write(self, name: str) -> None:
        while (report := self._unwritten.pop(name, None)) is not None:
            try:
                await self._configurations.store_status(
                    report.row, report.status, report.problem, report.at
                )
            except DatabaseUnavailableError:
                _log.warning("mcp_health_not_stored", server=name, status=report.status)
            await asyncio.sleep(self._pause_s)


Connect: TypeAlias = Callable[[McpServerRow, Callable[[], None]], Awaitable["Connection"]]
"""Opens a connection; the callback is called when the server ends it."""


class ServerConnection:
    """The connection to one server, as it is configured in `row`."""

    def __init__(self, row: McpServerRow, connect: Connect, health: ServerHealth) -> None:
        self.row = row
        self.configured_at = row.updated_at
        self._connect = connect
        self._health = health
        self._current: Connection | None = None
        self._opening: asyncio.Task[Connection] | None = None
        self._draining: set[asyncio.Task[None]] = set()
        self._failures = 0
        self._retry_at = 0.0
        self._problem = ""
        self._outlook: Outlook = "away"

    async def connection(self) -> "Connection":
        """Return an open connection; concurrent calls share one attempt to open it.

        Errors: CallLostError.
        """
        if self.open_connection is not None:
            return self.open_connection
        if self._opening is None:
            self._refuse_too_early()
            self._opening = asyncio.create_task(self._open())
            self._opening.add_done_callback(self._opened)
        opening = self._opening
        # It goes on for the other calls when this one is cancelled.
        await asyncio.wait({opening})
        if opening.cancelled():
            raise CallLostError("The server was disabled or reconfigured.", reached=False)
        return opening.result()

    @property
    def open_connection(self) -> "Connection | None":
        """The connection, if one is open."""
        current = self._current
        return None if current is None or current.has_ended else current

    @property
    def idle_s(self) -> float:
        """How long it has not been used. Units: seconds."""
        current = self.open_connection
        if self._opening is not None or (current is not None and current.is_in_use):
            return 0.0
        return monotonic() - (self._retry_at if current is None else current.used_at)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing left to close."""
        return self._current is None and self._opening is None and not self._draining

    def report_answered(self) -> None:
        """Note that the server answered a call."""
        self._failures = 0
        self._health.report_healthy(self.row)

    def report_failed(self, problem: str) -> None:
        """Note that the server failed a call, but not the connection."""
        self._health.report_failing(self.row, problem)

    def drop(self, connection: "Connection") -> None:
        """Make the next call reconnect; calls in progress may still get their answers."""
        if self._current is connection:
            self._current = None
            self._drain(connection)

    def drop_unreachable(self, connection: "Connection", error: CallLostError) -> None:
        """Drop a connection to a server that can't be reached, and pause before the next one."""
        if self._current is connection:
            self.drop(connection)
            self._fail(error.sentence, outlook=error.outlook)

    def retire(self) -> None:
        """Let the calls in progress finish, then close everything."""
        if self._opening is not None:
            self._opening.cancel()
        if self._current is not None:
            self.drop(self._current)

    async def close(self) -> None:
        """Close everything now; calls in progress fail."""
        current, self._current = self._current, None
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait({self._opening})
        for task in list(self._draining):
            task.cancel()
        if current is not None:
            await current.close()
        await asyncio.gather(*self._draining, return_exceptions=True)

    async def _open(self) -> "Connection":
        try:
            self._current = await self._connect(self.row, self._lost)
        except (McpServerError, UnreadableSecretError) as error:
            outlook = error.outlook if isinstance(error, McpServerError) else "refused"
            self._fail(str(error), outlook=outlook)
            raise self._failure() from error
        return self._current

    def _opened(self, opening: "asyncio.Task[Connection]") -> None:
        self._opening = None
        if not opening.cancelled():
            opening.exception()  # retrieved here in case no call is waiting any more

    def _refuse_too_early(self) -> None:
        if self._retry_at > monotonic():
            raise self._failure()

    def _failure(self) -> CallLostError:
        """Return the latest failure to connect, for a call that needs a connection."""
        return CallLostError(
            self._problem,
            reached=False,
            retry_after_s=self._retry_at - monotonic(),
            outlook=self._outlook,
        )

    def _lost(self) -> None:
        """Note that the server ended the connection, which it may do with an idle one."""
        current = self._current
        if current is None or not current.has_ended:
            return
        self._current = None
        if current.is_in_use or monotonic() - current.opened_at < _YOUNG_S:
            # After one crash it is started again at once.
            self._fail(current.ended_by or "The server closed the connection.", free_failures=1)

    def _fail(self, problem: str, *, outlook: Outlook = "away", free_failures: int = 0) -> None:
        self._problem, self._outlook = problem, outlook
        self._failures += 1
        # A server that refuses is up, and the next call may be the first one that it takes.
        doublings = 0 if outlook == "refused" else self._failures - free_failures - 1
        pause_s = 0.0 if doublings < 0 else _FIRST_PAUSE_S * 2.0 ** min(doublings, _MAX_DOUBLINGS)
        self._retry_at = monotonic() + min(pause_s, _MAX_PAUSE_S)
        self._health.report_failing(self.row, problem)

    def _drain(self, connection: "Connection") -> None:
        draining = asyncio.create_task(_close_when_idle(connection))
        self._draining.add(draining)
        draining.add_done_callback(self._draining.discard)


async def _close_when_idle(connection: "Connection") -> None:
    try:
        await asyncio.wait_for(connection.wait_until_idle(), _DRAIN_S)
    except TimeoutError:
        pass
    finally:
        await connection.close()
