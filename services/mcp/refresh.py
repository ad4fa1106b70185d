"""Owns taking over what tools an MCP server lists: into the database, under the name of each.

The conversation takes seconds, so it is held between two transactions; the second one changes
nothing where the server was configured anew in between.
"""

import asyncio
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog
from sqlalchemy import delete
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import SERVICE
from schema.mcp_servers import McpServerStatus, RefreshMcpServerInput, RefreshMcpServerOutput
from schema.tables import McpServerRow, McpToolRow
from schema.tables.columns import utc_now
from schema.tools import RetryClass, qualified_name
from schema.wire import make_storable
from services.database import Database
from services.mcp.addresses import ServerAddresses, Timeouts
from services.mcp.errors import McpServerError
from services.mcp.output_schemas import problem_of_output_schema
from services.mcp.words import bounded
from services.tools.input_schemas import problem_of_schema
from services.tools.secrets import UnreadableSecretError

if TYPE_CHECKING:
    from mcp_types import Tool

_log = structlog.get_logger(__name__)

_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_LONGEST_DESCRIPTION: Final = 4_000
_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Listing:
    """What came of a conversation; a problem without tools means that it failed."""

    tools: Sequence[McpToolRow]
    problem: str | None
    has_failed: bool


class OpenConnections(Protocol):
    """Connections that there are already: a server may have changed what it lists over its own."""

    async def list_open(self, server: str, configured_at: datetime) -> "Sequence[Tool] | None":
        """Return what a server lists over its open connection; nothing without such a one."""
        ...


class McpRefresh:
    """Lists the tools of servers. Errors: DatabaseUnavailableError."""

    def __init__(
        self,
        database: Database,
        addresses: ServerAddresses,
        *,
        allowed_hosts: Collection[str],
        timeouts: Timeouts | None = None,
        connections: OpenConnections | None = None,
    ) -> None:
        self._database = database
        self._addresses = addresses
        self._allowed_hosts = allowed_hosts
        self._timeouts = timeouts or Timeouts()
        self._connections = connections

    async def refresh(self, request: RefreshMcpServerInput) -> RefreshMcpServerOutput:
        """List a server's tools and store them; a server that fails keeps those that it had.

        Idempotency: done twice, it has the effect of the second time.
        """
        # A worker does this in nobody's name: what it reads are secrets that no user may see.
        async with self._database.transaction(SERVICE) as session:
            row = await session.get(McpServerRow, request.name)
        if row is None or row.updated_at != request.configured_at:
            return RefreshMcpServerOutput(status=McpServerStatus.UNKNOWN, superseded=True)
        return await self._store(request, await self._listing_of(row))

    async def configured(self) -> tuple[RefreshMcpServerInput, ...]:
        """Return the servers that are switched on, as they are configured now."""
        query = select(McpServerRow).where(col(McpServerRow.enabled)).order_by("name")
        async with self._database.transaction(SERVICE) as session:
            rows = (await session.exec(query)).all()
        return tuple(
            RefreshMcpServerInput(name=row.name, configured_at=row.updated_at) for row in rows
        )

    async def _listing_of(self, row: McpServerRow) -> Listing:
        try:
            # Aside: hundreds of schemas can be hard to read.
            return await asyncio.to_thread(usable, row.name, await self._tools_of(row))
        except (McpServerError, UnreadableSecretError) as error:
            return Listing((), bounded(str(error)), has_failed=True)

    async def _tools_of(self, row: McpServerRow) -> "Sequence[Tool]":
        if self._connections is not None:
            tools = await self._connections.list_open(row.name, row.updated_at)
            if tools is not None:
                return tools
        # Imported by the first refresh, aside: it takes the better part of a second.
        listing = await asyncio.to_thread(import_module, "services.mcp.listing")
        listed: Sequence[Tool] = await listing.list_tools(
            self._addresses.of(row), allowed_hosts=self._allowed_hosts, timeouts=self._timeouts
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
            row.status, row.problem, row.checked_at = status, listing.problem, utc_now()
            if not listing.has_failed:
                await _replace_tools(session, request.name, listing.tools)
        return RefreshMcpServerOutput(status=status, tool_count=len(listing.tools))


def usable(server: str, tools: "Sequence[Tool]") -> Listing:
    """Return the tools that can be called, and say which can't; with these alone, it has failed.

    One whose results can't be checked can be called, and is told of.
    """
    rows: dict[str, McpToolRow] = {}
    left_out: list[str] = []
    unchecked: list[str] = []
    for tool in tools:
        problem = "is listed twice" if tool.name in rows else _problem_of(server, tool)
        if problem is not None:
            left_out.append(f"{_shortened(tool.name)} ({problem})")
            continue
        row = rows[tool.name] = _row_of(server, tool)
        problem = _problem_of_output(tool)
        if problem is not None:
            row.output_schema = None
            unchecked.append(f"{_shortened(tool.name)} ({problem})")
    if unchecked:
        _log.warning("mcp_output_schemas_refused", server=server, tools=unchecked[:_NAMED])
    sentences = [*_told("Left out", left_out), *_told("Results not checked", unchecked)]
    problem = bounded(" ".join(sentences)) if sentences else None
    return Listing(tuple(rows.values()), problem, has_failed=bool(left_out) and not rows)


def _told(what: str, tools: Sequence[str]) -> Iterator[str]:
    if tools:
        more = f"; and {len(tools) - _NAMED} more" if len(tools) > _NAMED else ""
        yield f"{what}: {'; '.join(tools[:_NAMED])}{more}."


def _problem_of(server: str, tool: "Tool") -> str | None:
    if not _NAME.fullmatch(qualified_name(server, tool.name)):
        return "no name for a model: letters, digits, _ and -, 64 with the server's name at most"
    problem = problem_of_schema(tool.input_schema)
    return None if problem is None else f"its input schema {problem}"


def _problem_of_output(tool: "Tool") -> str | None:
    schema = tool.output_schema
    problem = None if schema is None else problem_of_output_schema(schema)
    return None if problem is None else f"its output schema {problem}"


def _row_of(server: str, tool: "Tool") -> McpToolRow:
    description = make_storable(tool.description or "")[:_LONGEST_DESCRIPTION]
    schema: dict[str, Any] = dict(tool.input_schema)
    return McpToolRow(
        server=server,
        name=tool.name,
        description=description,
        input_schema=schema,
        output_schema=tool.output_schema,
        retry_class=retry_class_of(tool),
    )


def retry_class_of(tool: "Tool") -> RetryClass:
    """Return whether a call may be made again: as the server says, or else at most once."""
    hints = tool.annotations
    if hints is not None and (hints.read_only_hint or hints.idempotent_hint):
        return RetryClass.IDEMPOTENT
    return RetryClass.NEVER


async def _replace_tools(session: AsyncSession, server: str, tools: Sequence[McpToolRow]) -> None:
    await session.exec(delete(McpToolRow).where(col(McpToolRow.server) == server))
    session.add_all(tools)


def _shortened(name: str) -> str:
    return f"`{make_storable(name[:40])}`"
