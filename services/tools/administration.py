"""Tools as administrators see them: the list of all tools, and their settings.

MCP servers and workflow tools are registered by services of their own.
"""

from typing import Any, Final

from sqlalchemy import ARRAY, Integer, Text, any_, bindparam, literal
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.audit import AuditAction, ResourceType
from schema.pages import Page, PageRequest, decode_cursor, encode_cursor
from schema.result import Err, Ok, Result
from schema.tables import McpToolRow, ToolSettingsRow, WorkflowToolRow
from schema.tables.columns import utc_now
from schema.tools import (
    SERVER_SEPARATOR,
    AdministeredTool,
    ChangeToolRequest,
    ToolDefinition,
    ToolKind,
)
from services.audit import changed, record
from services.database import Database
from services.database.queries import CompiledQuery
from services.resources import Conflict, Unreachable, Versions, touch, version_matches
from services.tools.catalogue import mcp_definition, settings_from_row, workflow_definition
from services.tools.local_tools import LocalTools
from services.tools.permission import DEFAULT_SETTINGS

_ORDER: Final = "name"

_AFTER: Final[Any] = bindparam("after", type_=Text)
_MOST: Final[Any] = bindparam("most", type_=Integer)
# Names are compared byte for byte, as they are when the kinds are merged.
_MCP_NAME: Final = (
    col(McpToolRow.server) + literal(SERVER_SEPARATOR) + col(McpToolRow.name)
).collate("C")
_WORKFLOW_NAME: Final = col(WorkflowToolRow.name).collate("C")
_MCP_TOOLS: Final = CompiledQuery(
    select(McpToolRow).where(_MCP_NAME > _AFTER).order_by(_MCP_NAME).limit(_MOST)
)
_WORKFLOW_TOOLS: Final = CompiledQuery(
    select(WorkflowToolRow).where(_WORKFLOW_NAME > _AFTER).order_by(_WORKFLOW_NAME).limit(_MOST)
)
_IS_NAMED: Final = col(ToolSettingsRow.name) == any_(bindparam("names", type_=ARRAY(Text)))
_SETTINGS: Final = CompiledQuery(select(ToolSettingsRow).where(_IS_NAMED))
_FIRST_VERSION: Final = 1
"""The version of a tool without settings."""


class ToolAdministration:
    """Lists all tools and changes their settings. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, local: LocalTools) -> None:
        self._database = database
        self._local = local

    async def list_tools(
        self, actor: Actor, page: PageRequest, *, kind: ToolKind | None
    ) -> Page[AdministeredTool]:
        """Return the tools of one kind or all kinds, by name.

        Errors: InvalidCursorError.
        """
        after = "" if page.cursor is None else decode_cursor(page.cursor, _ORDER, [str])[0]
        part = {"after": after, "most": page.limit + 1}
        found = self._local_after(after) if kind in {None, ToolKind.LOCAL} else []
        async with self._database.statements(actor) as connection:
            if kind in {None, ToolKind.MCP}:
                listed = await _MCP_TOOLS.all(connection, **part)
                found += map(mcp_definition, listed)
            if kind in {None, ToolKind.WORKFLOW}:
                webhooks = await _WORKFLOW_TOOLS.all(connection, **part)
                found += map(workflow_definition, webhooks)
            shown = sorted(found, key=lambda tool: tool.name)[: page.limit]
            names = [tool.name for tool in shown]
            rows = await _SETTINGS.all(connection, names=names)
        settings = {row.name: row for row in rows}
        following = encode_cursor(_ORDER, names[-1:]) if len(found) > len(shown) else None
        return Page([_administered(tool, settings.get(tool.name)) for tool in shown], following)

    async def change(
        self, actor: Actor, name: str, request: ChangeToolRequest, *, versions: Versions
    ) -> Result[AdministeredTool, Conflict | Unreachable]:
        """Change a tool's settings; `versions` are those that the change is meant for."""
        async with self._database.transaction(actor) as session:
            found = await self._find(session, name)
            if found is None:
                return Err(Unreachable.MISSING)
            tool, registered = found
            row = await _lock_settings(session, name)
            if not version_matches(row.version, versions):
                return Err(Conflict.VERSION_CHANGED)
            changes = request.changes()
            _apply(row, changes)
            if changes.get("enabled") and registered is not None and registered.input_schema:
                # The provider may be another one than that which refused the tool.
                registered.problem, tool = None, tool.model_copy(update={"problem": None})
            await session.flush()
            record(
                session,
                actor,
                AuditAction.TOOL_CHANGED,
                (ResourceType.TOOL, name),
                details=changed(changes),
            )
        return Ok(_administered(tool, row))

    async def _find(
        self, session: AsyncSession, name: str
    ) -> tuple[ToolDefinition, McpToolRow | WorkflowToolRow | None] | None:
        """Return a tool and its row, if it has one."""
        local = self._local.get(name)
        if local is not None:
            return local.definition, None
        server, separator, tool = name.partition(SERVER_SEPARATOR)
        if separator:
            listed = await session.get(McpToolRow, (server, tool))
            return None if listed is None else (mcp_definition(listed), listed)
        webhook = await session.get(WorkflowToolRow, name)
        return None if webhook is None else (workflow_definition(webhook), webhook)

    def _local_after(self, after: str) -> list[ToolDefinition]:
        return [tool for tool in self._local.definitions() if tool.name > after]


def _administered(tool: ToolDefinition, row: ToolSettingsRow | None) -> AdministeredTool:
    settings = DEFAULT_SETTINGS if row is None else settings_from_row(row)
    return AdministeredTool(
        name=tool.name,
        kind=tool.kind,
        server=tool.server,
        name_on_server=tool.name_on_server,
        description=tool.description,
        input_schema=tool.input_schema,
        default_approval=tool.approval,
        retry_class=settings.retry_class or tool.retry_class,
        timeout_s=settings.timeout_s or tool.timeout.total_seconds(),
        cost_usd=tool.cost_usd if settings.cost_usd is None else settings.cost_usd,
        enabled=settings.enabled,
        problem=tool.problem,
        approval=settings.approval,
        roles=None if settings.roles is None else tuple(sorted(settings.roles)),
        changed_at=None if row is None else row.updated_at,
        version=_FIRST_VERSION if row is None else row.version,
    )


async def _lock_settings(session: AsyncSession, name: str) -> ToolSettingsRow:
    """Return the locked settings of a tool, inserted if it has none."""
    row = insert(ToolSettingsRow).values(name=name, enabled=True, version=1, updated_at=utc_now())
    await session.exec(row.on_conflict_do_nothing())
    return await session.get_one(ToolSettingsRow, name, with_for_update=True)


def _apply(row: ToolSettingsRow, changes: dict[str, Any]) -> None:
    if "enabled" in changes:
        row.enabled = changes["enabled"]
    if "approval" in changes:
        row.approval = changes["approval"]
    if "roles" in changes:
        row.roles = None if changes["roles"] is None else sorted(set(changes["roles"]))
    for name in changes.keys() & {"retry_class", "timeout_s", "cost_usd"}:
        setattr(row, name, changes[name])
    touch(row)
