"""The connections of a worker to MCP servers: one for each server, opened by its first call.

A server that is down, slow or hostile affects only the calls that it gets.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import structlog

from schema.mcp_servers import RefreshMcpServerInput
from schema.tables import McpServerRow
from services.database import DatabaseUnavailableError
from services.mcp.addresses import ServerAddresses, Timeouts
from services.mcp.errors import CallLostError, CallRejectedError, SessionLostError
from services.mcp.refresh import ToolChanges
from services.mcp.servers import ServerConfigurations, ServerConnection, ServerHealth
from services.tools.masks import SecretMask

if TYPE_CHECKING:
    from mcp_types import CallToolResult, Tool

    from services.mcp.connection import Connection
    from services.mcp.sdk import ProgressFnT

_log = structlog.get_logger(__name__)

_SESSIONS_LOST: Final = "The server keeps losing its session."


@dataclass(frozen=True, slots=True)
class PoolTimings:
    """When connections are closed. Units: seconds."""

    idle_s: float = 600.0
    check_every_s: float = 30.0


class McpPool:
    """The connections. Errors: DatabaseUnavailableError; those of `errors.py`."""

    def __init__(
        self,
        configurations: ServerConfigurations,
        addresses: ServerAddresses,
        *,
        allowed_hosts: Collection[str],
        health: ServerHealth,
        changes: ToolChanges,
        timeouts: Timeouts | None = None,
        timings: PoolTimings | None = None,
    ) -> None:
        self._configurations = configurations
        self._addresses = addresses
        self._allowed_hosts = allowed_hosts
        self._health = health
        self._changes = changes
        self._timeouts = timeouts or Timeouts()
        self._timings = timings or PoolTimings()
        self._servers: dict[str, ServerConnection] = {}
        self._retired: set[ServerConnection] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._checking: asyncio.Task[None] | None = None
        self._is_closed = False

    async def __aenter__(self) -> Self:
        """Start to close idle connections."""
        self._checking = asyncio.create_task(self._check_periodically())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close all connections, and end all processes."""
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.gather(self._checking, return_exceptions=True)
        self._is_closed = True
        servers = {*self._servers.values(), *self._retired}
        self._servers.clear()
        await asyncio.gather(*(server.close() for server in servers), *self._closing)
        await self._changes.close()
        await self._health.close()

    async def call(
        self,
        name: str,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        meta: Mapping[str, Any],
        on_progress: "ProgressFnT",
    ) -> "tuple[CallToolResult, SecretMask]":
        """Call a server's tool by the name that it has there.

        The mask takes the server's secrets out of the result.
        Errors: CallLostError; CallRejectedError.
        """
        server = await self._server(name)
        for is_last in (False, True):
            connection = await server.connection()
            try:
                result = await connection.call_tool(
                    tool, arguments, meta=meta, on_progress=on_progress
                )
            except SessionLostError as error:
                server.drop(connection)
                if is_last:
                    server.report_failed(_SESSIONS_LOST)
                    raise CallLostError(_SESSIONS_LOST, reached=False) from error
            except CallRejectedError:
                server.report_answered()
                raise
            except CallLostError as error:
                _report_lost(server, connection, error)
                raise
            else:
                server.report_answered()
                return result, connection.mask
        raise RuntimeError("unreachable")  # pragma: no cover -- the last round returns or raises

    async def list_open(self, name: str, configured_at: datetime) -> "Sequence[Tool] | None":
        """Return what a server lists over its open connection; None without one.

        Errors: McpServerError.
        """
        server = self._servers.get(name)
        connection = None if server is None else server.open_connection
        if server is None or connection is None or server.configured_at != configured_at:
            return None
        try:
            tools = await connection.list_tools()
        except SessionLostError:
            server.drop(connection)
            return None
        return tools

    async def _server(self, name: str) -> ServerConnection:
        row = await self._configurations.get(name)
        if self._is_closed:
            raise CallLostError("The worker is shutting down.", reached=False)
        server = self._servers.get(name)
        if row is None:
            if server is not None:
                self._close(name)
            # Waiting would not help.
            raise CallRejectedError("The tool's server is disabled or no longer registered.")
        if server is not None and server.configured_at != row.updated_at:
            self._retire(name)
            server = None
        if server is None:
            server = self._servers[name] = ServerConnection(row, self._connect, self._health)
        server.row = row
        return server

    async def _connect(self, row: McpServerRow, on_lost: Callable[[], None]) -> "Connection":
        # Imported by the first call, in a thread: the SDK takes the better part of a second.
        module = await asyncio.to_thread(import_module, "services.mcp.connection")
        changed = RefreshMcpServerInput(name=row.name, configured_at=row.updated_at)
        connection: Connection = module.Connection(
            self._addresses.address_of(row),
            allowed_hosts=self._allowed_hosts,
            timeouts=self._timeouts,
            on_tools_changed=lambda: self._changes.note(changed),
            on_lost=on_lost,
        )
        await connection.open()
        return connection

    def _retire(self, name: str) -> None:
        server = self._servers.pop(name)
        server.retire()
        self._retired.add(server)

    def _close(self, name: str) -> None:
        closing = asyncio.create_task(self._servers.pop(name).close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _check_periodically(self) -> None:
        while True:
            await asyncio.sleep(self._timings.check_every_s)
            self._retired = {server for server in self._retired if not server.is_empty}
            for name in list(self._servers):
                try:
                    await self._check(name)
                except DatabaseUnavailableError:
                    # A connection may stay open for a little longer.
                    _log.warning("mcp_pool_check_failed")

    async def _check(self, name: str) -> None:
        row = await self._configurations.get(name)
        server = self._servers.get(name)
        if server is None:
            return
        if row is None:
            self._close(name)
        elif server.configured_at != row.updated_at or server.idle_s > self._timings.idle_s:
            self._retire(name)


def _report_lost(server: ServerConnection, connection: "Connection", error: CallLostError) -> None:
    if error.is_unreachable:
        server.drop_unreachable(connection, error)
    elif not connection.has_ended:
        # A connection that has ended reports that itself.
        server.report_failed(error.sentence)
