"""Refreshing the tools of MCP servers: listed by the server, checked, and stored.

Listing takes seconds, so it happens between two transactions; the second one changes nothing if
the server was reconfigured in between.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import structlog
from sqlalchemy import delete
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import SERVICE
from schema.mcp_servers import McpServerStatus, RefreshMcpServerInput, RefreshMcpServerOutput
from schema.tables import McpServerRow, McpToolRow
from schema.tables.columns import utc_now
from schema.tools import RetryClass
from schema.wire import make_storable
from services.alerts import OnAlert
from services.database import Database, DatabaseUnavailableError
from services.mcp.addresses import ServerAddresses, Timeouts
from services.mcp.errors import McpServerError, bounded
from services.mcp.output_schemas import problem_of_output_schema
from services.mcp.servers import set_status
from services.mcp.tool_names import MAX_TOOLS, assigned_names, first_by_name, problem_of_name
from services.tools.input_schemas import problem_of_schema
from services.tools.refusals import REFUSED_BY_PROVIDER
from services.tools.schema_drafts import upgraded
from services.tools.secrets import UnreadableSecretError

if TYPE_CHECKING:
    from mcp_types import Tool

_log = structlog.get_logger(__name__)

_MAX_DESCRIPTION: Final = 4_000
_MAX_NAMED: Final = 5
_DEFECT: Final = "Internal error ({}). See the worker's log."
_TOO_MANY: Final = f"More than {MAX_TOOLS} tools: only the first {MAX_TOOLS} by name are used."
_DELAY_S: Final = 0.5
"""Servers send one notification for each of many changed tools."""
_PAUSE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Listing:
    """The tools of a server, and what is wrong with those that can't be used.

    `tools` includes these, as far as they can be named; their rows have a `problem`. All rows have
    the names of the server until they are stored.
    """

    tools: Sequence[McpToolRow]
    problem: str | None
    has_failed: bool

    @property
    def usable(self) -> int:
        """How many of the tools can be offered to models."""
        return sum(row.problem is None for row in self.tools)


class OpenConnections(Protocol):
    """Connections that are open already: a server may list other tools over each connection."""

    async def list_open(self, server: str, configured_at: datetime) -> "Sequence[Tool] | None":
        """Return what a server lists over its open connection; None without one."""
        ...


class McpRefresh:
    """Refreshes the tools of servers. Errors: DatabaseUnavailableError."""

    def __init__(
        self,
        database: Database,
        addresses: ServerAddresses,
        *,
        allowed_hosts: Collection[str],
        timeouts: Timeouts | None = None,
        connections: OpenConnections | None = None,
        on_alert: OnAlert = lambda: None,
    ) -> None:
        self._database = database
        self._addresses = addresses
        self._allowed_hosts = allowed_hosts
        self._timeouts = timeouts or Timeouts()
        self._connections = connections
        self._on_alert = on_alert

    async def refresh(self, request: RefreshMcpServerInput) -> RefreshMcpServerOutput:
        """List a server's tools and store them; a server that fails keeps its previous tools.

        Idempotency: a repeated refresh replaces the result of the one before.
        """
        # As the service: the row holds secrets that no user may read.
        async with self._database.transaction(SERVICE) as session:
            row = await session.get(McpServerRow, request.name)
        if row is None or row.updated_at != request.configured_at:
            return RefreshMcpServerOutput(status=McpServerStatus.UNKNOWN, superseded=True)
        try:
            return await self._store(request, await self._listing_of(row))
        except DatabaseUnavailableError:
            raise
        except Exception as error:
            # What keeps its tools from being read must not leave the server looking healthy.
            problem = _DEFECT.format(type(error).__name__)
            await self._store(request, Listing((), problem, has_failed=True))
            raise

    async def enabled_servers(self) -> tuple[RefreshMcpServerInput, ...]:
        """Return the enabled servers, as they are configured now."""
        query = select(McpServerRow).where(col(McpServerRow.enabled)).order_by("name")
        async with self._database.transaction(SERVICE) as session:
            rows = (await session.exec(query)).all()
        return tuple(
            RefreshMcpServerInput(name=row.name, configured_at=row.updated_at) for row in rows
        )

    async def _listing_of(self, row: McpServerRow) -> Listing:
        try:
            # In a thread: checking hundreds of schemas takes long.
            return await asyncio.to_thread(check_tools, row.name, await self._tools_of(row))
        except (McpServerError, UnreadableSecretError) as error:
            return Listing((), bounded(str(error)), has_failed=True)

    async def _tools_of(self, row: McpServerRow) -> "Sequence[Tool]":
        if self._connections is not None:
            tools = await self._connections.list_open(row.name, row.updated_at)
            if tools is not None:
                return tools
        # Imported by the first refresh, in a thread: the SDK takes the better part of a second.
        module = await asyncio.to_thread(import_module, "services.mcp.connection")
        listed: Sequence[Tool] = await module.list_tools(
            self._addresses.address_of(row),
            allowed_hosts=self._allowed_hosts,
            timeouts=self._timeouts,
        )
        return listed

    async def _store(
        self, request: RefreshMcpServerInput, listing: Listing
    ) -> RefreshMcpServerOutput:
        status = McpServerStatus.FAILING if listing.has_failed else McpServerStatus.HEALTHY
        async with self._database.transaction(SERVICE) as session:
            row = await session.get(McpServerRow, request.name, with_for_update=True)
            if row is None or row.updated_at != request.configured_at:
                return RefreshMcpServerOutput(status=McpServerStatus.UNKNOWN, superseded=True)
            raised = await set_status(session, row, status, listing.problem, at=utc_now())
            if not listing.has_failed:
                refused = await _replace_tools(session, request.name, listing.tools)
                row.problem = " ".join([*filter(None, [row.problem]), *refused]) or None
        if raised:
            self._on_alert()
        return RefreshMcpServerOutput(status=status, tool_count=listing.usable)


def check_tools(server: str, tools: "Sequence[Tool]") -> Listing:
    """Return the tools, and name those that can't be offered; with these alone, it failed.

    Of more than `MAX_TOOLS` the rest is left out. A tool whose output schema can't be used is kept
    and named, but its results are not validated.
    """
    rows: dict[str, McpToolRow] = {}
    skipped: list[str] = []
    unvalidated: list[str] = []
    for tool in first_by_name(tools, lambda tool: tool.name, limit=MAX_TOOLS):
        if tool.name in rows:
            skipped.append(f"{_shortened(tool.name)} (listed twice)")
            continue
        problem = _problem_of(tool)
        if problem is not None:
            skipped.append(f"{_shortened(tool.name)} ({problem})")
            if problem_of_name(tool.name) is None:
                rows[tool.name] = _unusable(server, tool, problem)
            continue
        row = rows[tool.name] = _row_of(server, tool)
        problem = _problem_of_output(tool)
        if problem is not None:
            row.output_schema = None
            unvalidated.append(f"{_shortened(tool.name)} ({problem})")
    if unvalidated:
        _log.warning("mcp_output_schemas_refused", server=server, tools=unvalidated[:_MAX_NAMED])
    sentences = [
        *([_TOO_MANY] if len(tools) > MAX_TOOLS else []),
        *_summary("Skipped tools", skipped),
        *_summary("Results not validated", unvalidated),
    ]
    problem = bounded(" ".join(sentences)) if sentences else None
    is_usable = any(row.problem is None for row in rows.values())
    return Listing(tuple(rows.values()), problem, has_failed=bool(skipped) and not is_usable)


def _summary(title: str, tools: Sequence[str]) -> Iterator[str]:
    if tools:
        more = f"; and {len(tools) - _MAX_NAMED} more" if len(tools) > _MAX_NAMED else ""
        yield f"{title}: {'; '.join(tools[:_MAX_NAMED])}{more}."


def _problem_of(tool: "Tool") -> str | None:
    problem = problem_of_name(tool.name)
    if problem is not None:
        return problem
    if tool.execution is not None and tool.execution.task_support == "required":
        return "runs only as a task, which is not supported"
    problem = problem_of_schema(upgraded(tool.input_schema))
    return None if problem is None else f"its input schema {problem}"


def _problem_of_output(tool: "Tool") -> str | None:
    schema = tool.output_schema
    problem = None if schema is None else problem_of_output_schema(schema)
    return None if problem is None else f"its output schema {problem}"


def _description_of(tool: "Tool") -> str:
    return make_storable(tool.description or "")[:_MAX_DESCRIPTION]


def _unusable(server: str, tool: "Tool", problem: str) -> McpToolRow:
    """Return a row that only says what is wrong: the tool's schema may be anything."""
    return McpToolRow(
        server=server,
        name=tool.name,
        description=_description_of(tool),
        input_schema={},
        problem=bounded(f"Skipped: {problem}."),
    )


def _row_of(server: str, tool: "Tool") -> McpToolRow:
    schema: dict[str, Any] = {"type": "object", **upgraded(tool.input_schema)}
    return McpToolRow(
        server=server,
        name=tool.name,
        description=_description_of(tool),
        input_schema=schema,
        output_schema=tool.output_schema,
        retry_class=retry_class_of(tool),
    )


def retry_class_of(tool: "Tool") -> RetryClass:
    """Return whether a call may be repeated: as the server's annotations say, by default never."""
    hints = tool.annotations
    if hints is not None and (hints.read_only_hint or hints.idempotent_hint):
        return RetryClass.IDEMPOTENT
    return RetryClass.NEVER


async def _replace_tools(
    session: AsyncSession, server: str, tools: Sequence[McpToolRow]
) -> list[str]:
    """Store the tools, and return a sentence if the model's provider refuses some as they are."""
    of_server = col(McpToolRow.server) == server
    await _assign_names(session, server, tools)
    before = await session.exec(
        select(
            McpToolRow.name, McpToolRow.input_schema, McpToolRow.description, McpToolRow.problem
        ).where(of_server, col(McpToolRow.problem).is_not(None))
    )
    # One that was skipped has no schema, so it equals none that can be used now.
    problems = {(name, _as_json(schema), text): problem for name, schema, text, problem in before}
    for row in tools:
        as_it_is = (row.name, _as_json(row.input_schema), row.description)
        row.problem = row.problem or problems.get(as_it_is)
    await session.exec(delete(McpToolRow).where(of_server))
    session.add_all(tools)
    return list(
        _summary(
            REFUSED_BY_PROVIDER,
            [_shortened(row.name) for row in tools if row.problem and row.input_schema],
        )
    )


async def _assign_names(session: AsyncSession, server: str, tools: Sequence[McpToolRow]) -> None:
    """Give the rows their names. The server's row is locked: one refresh sees another's names."""
    rows = await session.exec(
        select(McpToolRow.name, McpToolRow.name_on_server).where(col(McpToolRow.server) == server)
    )
    stored = {on_server or name: name for name, on_server in rows}
    names = assigned_names(server, [row.name for row in tools], stored=stored)
    for row in tools:
        on_server, row.name = row.name, names[row.name]
        row.name_on_server = None if row.name == on_server else on_server


def _as_json(schema: Mapping[str, Any]) -> str:
    return json.dumps(schema, sort_keys=True)


def _shortened(name: str) -> str:
    return f"`{make_storable(name[:40])}`"


Refresh: TypeAlias = Callable[[RefreshMcpServerInput], Awaitable[object]]


class ToolChanges:
    """Refreshes servers that report changed tools, each at most every ten seconds."""

    def __init__(self, *, delay_s: float = _DELAY_S, pause_s: float = _PAUSE_S) -> None:
        self._delay_s = delay_s
        self._pause_s = pause_s
        self._refresh: Refresh | None = None
        self._changed: dict[str, RefreshMcpServerInput] = {}
        self._following: dict[str, asyncio.Task[None]] = {}

    def refresh_with(self, refresh: Refresh) -> None:
        """Set what refreshes a server: it needs the pool, which needs this."""
        self._refresh = refresh

    def note(self, server: RefreshMcpServerInput) -> None:
        """Note that a server's tools have changed."""
        self._changed[server.name] = server
        if server.name not in self._following:
            following = asyncio.create_task(self._follow(server.name))
            self._following[server.name] = following
            following.add_done_callback(lambda _: self._following.pop(server.name, None))

    async def close(self) -> None:
        """Stop refreshing."""
        for task in list(self._following.values()):
            task.cancel()
        await asyncio.gather(*self._following.values(), return_exceptions=True)

    async def _follow(self, name: str) -> None:
        while name in self._changed:
            await asyncio.sleep(self._delay_s)
            server = self._changed.pop(name)
            try:
                if self._refresh is not None:
                    await self._refresh(server)
            except DatabaseUnavailableError:
                # The next sweep lists them.
                _log.warning("mcp_tools_not_refreshed", server=name)
            await asyncio.sleep(self._pause_s)
