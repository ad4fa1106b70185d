"""Owns the connections of a worker to MCP servers: one for each server, opened by its first call.

A server that is dead, slow or hostile costs the calls that it gets, and nobody else's.
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
from services.mcp.configured import ConfiguredServers
from services.mcp.errors import CallLostError, CallRefusedError, SessionLostError
from services.mcp.health import ServerHealth
from services.mcp.server_connection import ServerConnection
from services.mcp.tool_changes import ToolChanges

if TYPE_CHECKING:
    from mcp.shared.dispatcher import ProgressFnT
    from mcp_types import CallToolResult, Tool

    from services.mcp.connection import Connection

_log = structlog.get_logger(__name__)

_SDK: Final = "services.mcp.calling"


@dataclass(frozen=True, slots=True)
class PoolTimings:
    """When connections are closed. Units: seconds."""

    idle_s: float = 600.0
    look_every_s: float = 30.0


class McpPool:
    """The connections. Errors: DatabaseUnavailableError; those of `errors.py`."""

    def __init__(
        self,
        servers: ConfiguredServers,
        addresses: ServerAddresses,
        *,
        allowed_hosts: Collection[str],
        health: ServerHealth,
        changes: ToolChanges,
        timeouts: Timeouts | None = None,
        timings: PoolTimings | None = None,
    ) -> None:
        self._servers = servers
        self._addresses = addresses
        self._allowed_hosts = allowed_hosts
        self._health = health
        self._changes = changes
        self._timeouts = timeouts or Timeouts()
        self._timings = timings or PoolTimings()
        self._slots: dict[str, ServerConnection] = {}
        self._retired: set[ServerConnection] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._is_closed = False

    async def __aenter__(self) -> Self:
        """Begin to close connections that nobody uses."""
        self._looking = asyncio.create_task(self._look_now_and_then())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close all connections, and leave no process behind."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        self._is_closed = True
        slots = {*self._slots.values(), *self._retired}
        self._slots.clear()
        await asyncio.gather(*(slot.close() for slot in slots), *self._closing)
        await self._changes.close()
        await self._health.close()

    async def call(
        self,
        server: str,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        meta: Mapping[str, Any],
        on_progress: "ProgressFnT",
    ) -> "CallToolResult":
        """Call a server's tool by the name that it has there.

        Errors: CallLostError; CallRefusedError.
        """
        # Imported by the first call, aside: it takes the better part of a second.
        calling = await asyncio.to_thread(import_module, _SDK)
        slot = await self._slot_of(server)
        for is_last in (False, True):
            connection = await slot.connection()
            try:
                result: CallToolResult = await calling.call_tool(
                    connection, tool, arguments, meta=meta, on_progress=on_progress
                )
            except SessionLostError as error:
                slot.drop(connection)
                if is_last:
                    slot.failed("It forgets its sessions.")
                    raise CallLostError("It forgets its sessions.", reached=False) from error
            except CallRefusedError:
                slot.answered()
                raise
            except CallLostError as error:
                _note_lost(slot, connection, error)
                raise
            else:
                slot.answered()
                return result
        raise RuntimeError("unreachable")  # pragma: no cover -- the last round returns or raises

    async def list_open(self, server: str, configured_at: datetime) -> "Sequence[Tool] | None":
        """Return what a server lists over its open connection; nothing without such a one.

        Errors: McpServerError.
        """
        slot = self._slots.get(server)
        connection = None if slot is None else slot.open_connection
        if slot is None or connection is None or slot.configured_at != configured_at:
            return None
        try:
            tools = await connection.list_tools()
        except SessionLostError:
            slot.drop(connection)
            return None
        return tools

    async def _slot_of(self, server: str) -> ServerConnection:
        row = await self._servers.get(server)
        if self._is_closed:
            raise CallLostError("It is left: this worker ends.", reached=False)
        slot = self._slots.get(server)
        if row is None:
            if slot is not None:
                self._switch_off(server)
            raise CallLostError("It is switched off or no longer registered.", reached=False)
        if slot is not None and slot.configured_at != row.updated_at:
            self._retire(server)
            slot = None
        if slot is None:
            slot = self._slots[server] = ServerConnection(row, self._connect, self._health)
        slot.row = row
        return slot

    async def _connect(self, row: McpServerRow, on_lost: Callable[[], None]) -> "Connection":
        module = await asyncio.to_thread(import_module, "services.mcp.connection")
        changed = RefreshMcpServerInput(name=row.name, configured_at=row.updated_at)
        connection: Connection = module.Connection(
            self._addresses.of(row),
            allowed_hosts=self._allowed_hosts,
            timeouts=self._timeouts,
            on_tools_changed=lambda: self._changes.note(changed),
            on_lost=on_lost,
        )
        await connection.open()
        return connection

    def _retire(self, server: str) -> None:
        slot = self._slots.pop(server)
        slot.retire()
        self._retired.add(slot)

    def _switch_off(self, server: str) -> None:
        closing = asyncio.create_task(self._slots.pop(server).close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _look_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(self._timings.look_every_s)
            self._retired = {slot for slot in self._retired if not slot.is_empty}
            for server in list(self._slots):
                try:
                    await self._look_at(server)
                except DatabaseUnavailableError:
                    # A connection may stay for a little longer.
                    _log.warning("mcp_pool_not_looked_after")

    async def _look_at(self, server: str) -> None:
        row = await self._servers.get(server)
        slot = self._slots.get(server)
        if slot is None:
            return
        if row is None:
            self._switch_off(server)
        elif slot.configured_at != row.updated_at or slot.idle_s > self._timings.idle_s:
            self._retire(server)


def _note_lost(slot: ServerConnection, connection: "Connection", error: CallLostError) -> None:
    if error.is_unreachable:
        slot.give_up(connection, error.sentence)
    elif not connection.is_over:
        # One that has ended has told so by itself.
        slot.failed(error.sentence)
