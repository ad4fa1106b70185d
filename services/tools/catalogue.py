"""All tools of every kind: in this process, on MCP servers and behind webhooks.

They come with the administrators' settings; `permission.py` decides who may use which. Triggers of
the database count every change, so that a process learns of one at its next turn.
"""

from collections.abc import Collection, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, cast

from cachetools import LRUCache, TTLCache
from pydantic import JsonValue
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import SERVICE
from schema.tables import (
    McpServerRow,
    McpToolRow,
    ToolCatalogueRow,
    ToolSettingsRow,
    WorkflowToolRow,
)
from schema.tools import ApprovalPolicy, RetryClass, ToolDefinition, ToolKind, qualified_name
from services.database import Database, GatheredReads
from services.tools.local_tools import LocalTools
from services.tools.permission import (
    DEFAULT_SETTINGS,
    Audience,
    ToolSettings,
    offerable,
    permitted,
    with_settings,
)

_ALL: Final = "all"
_MOST_DERIVED: Final = 200
_MCP_TIMEOUT: Final = timedelta(seconds=60)
"""The timeout of MCP servers' tools, unless an administrator sets another."""


@dataclass(frozen=True, slots=True)
class ToolSnapshot:
    """Tools and their settings at one moment, by name; any change increases `version`.

    `derived` keeps what users of the snapshot compute from it.
    """

    definitions: Mapping[str, ToolDefinition]
    settings: Mapping[str, ToolSettings]
    version: int = 0
    derived: MutableMapping[str, Any] = field(
        default_factory=lambda: LRUCache(_MOST_DERIVED), repr=False, compare=False
    )

    def find(self, name: str) -> ToolDefinition | None:
        """Return the tool with this name, with the administrators' settings applied."""
        tool = self.definitions.get(name)
        return None if tool is None else with_settings(tool, self.settings_of(name))

    def settings_of(self, name: str) -> ToolSettings:
        """Return the administrators' settings of a tool."""
        return self.settings.get(name, DEFAULT_SETTINGS)

    def permitted_to(self, audience: Audience) -> tuple[ToolDefinition, ...]:
        """Return the tools that the audience may use, in a stable order."""
        return permitted(tuple(self.definitions.values()), self.settings, audience)

    def offered_to(
        self, audience: Audience | None, *, disabled: Collection[str]
    ) -> tuple[ToolDefinition, ...]:
        """Return the tools to offer to the audience's model; none without an audience."""
        if audience is None:
            return ()
        usable = offerable(self.permitted_to(audience))
        return tuple(tool for tool in usable if tool.name not in disabled)


class ToolCatalogue:
    """Reads all tools, cached for a few seconds. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, local: LocalTools, *, lifetime_s: float) -> None:
        self._database = database
        self._local = local
        self._cached: TTLCache[str, ToolSnapshot] = TTLCache(1, lifetime_s)
        self._newest: ToolSnapshot | None = None
        self._reads = GatheredReads(self._read_all)

    async def snapshot(self, *, version: int | None = None) -> ToolSnapshot:
        """Return the tools as of some seconds ago at most; at least at `version`."""
        cached = self._cached.get(_ALL)
        if cached is not None and (version is None or cached.version >= version):
            return cached
        # All calls of an answer ask at once.
        return cast("ToolSnapshot", await self._reads.get(_ALL))

    async def current_snapshot(self) -> ToolSnapshot:
        """Return the tools as they are now."""
        async with self._database.transaction(SERVICE) as session:
            version = await _version(session)
        return await self.snapshot(version=version)

    async def _read_all(self, keys: Collection[str]) -> dict[str, ToolSnapshot]:
        # The snapshot is the same for all users, who may not read the URLs of webhooks.
        async with self._database.transaction(SERVICE) as session:
            # The version first: what changes while the rest is read is read again next time.
            version = await _version(session)
            found = self._newest
            if found is None or found.version != version:
                self._newest = found = await self._read(session, version)
        self._cached[_ALL] = found
        return dict.fromkeys(keys, found)

    async def _read(self, session: AsyncSession, version: int) -> ToolSnapshot:
        tools = (*self._local.definitions(), *await _registered(session))
        settings = (await session.exec(select(ToolSettingsRow))).all()
        return ToolSnapshot(
            definitions={tool.name: tool for tool in tools},
            settings={row.name: settings_from_row(row) for row in settings},
            version=version,
        )


async def _version(session: AsyncSession) -> int:
    return (await session.exec(select(ToolCatalogueRow.version))).one()


async def _registered(session: AsyncSession) -> list[ToolDefinition]:
    of_servers = (
        select(McpToolRow)
        .join(McpServerRow, col(McpServerRow.name) == col(McpToolRow.server))
        .where(col(McpServerRow.enabled), col(McpToolRow.problem).is_(None))
        .order_by(col(McpToolRow.server), col(McpToolRow.name))
    )
    webhooks = (
        select(WorkflowToolRow)
        .where(col(WorkflowToolRow.enabled), col(WorkflowToolRow.problem).is_(None))
        .order_by(WorkflowToolRow.name)
    )
    mcp = (await session.exec(of_servers)).all()
    workflow = (await session.exec(webhooks)).all()
    return [
        *map(mcp_definition, mcp),
        *map(workflow_definition, workflow),
    ]


def settings_from_row(row: ToolSettingsRow) -> ToolSettings:
    """Return the settings that the row holds."""
    return ToolSettings.model_validate(row, from_attributes=True)


def mcp_definition(row: McpToolRow) -> ToolDefinition:
    """Return the definition of an MCP server's tool."""
    return ToolDefinition(
        name=qualified_name(row.server, row.name),
        description=row.description,
        input_schema=_object_schema(row.input_schema),
        output_schema=row.output_schema,
        kind=ToolKind.MCP,
        server=row.server,
        name_on_server=row.name_on_server,
        timeout=_MCP_TIMEOUT,
        retry_class=RetryClass(row.retry_class),
        problem=row.problem,
    )


def workflow_definition(row: WorkflowToolRow) -> ToolDefinition:
    """Return the definition of a webhook's tool."""
    return ToolDefinition(
        name=row.name,
        description=row.description,
        input_schema=_object_schema(row.input_schema),
        kind=ToolKind.WORKFLOW,
        timeout=timedelta(seconds=row.timeout_s),
        retry_class=RetryClass(row.retry_class),
        approval=ApprovalPolicy(row.approval),
        problem=row.problem,
    )


def _object_schema(stored: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return a schema with the type that providers require, whatever else it says."""
    return {"type": "object", **stored}
