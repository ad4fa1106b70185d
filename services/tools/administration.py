"""Owns what administrators see of all tools, decide about them and try with them.

Where MCP and workflow tools come from is registered by services of their own.
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
    ToolKind,
)
from services.audit.recording import changed, record
from services.database import Database
from services.database.queries import CompiledQuery
from services.resources import Conflict, Unreachable, Versions, is_meant, touch
from services.tools.registry import ToolRegistry
from services.tools.rows import mcp_definition_from_row, workflow_definition_from_row
from services.tools.schema_for_model import administered, with_decision

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
_DECISIONS: Final = CompiledQuery(select(ToolSettingsRow).where(_IS_NAMED))


class ToolAdministration:
    """Administers tools. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, registry: ToolRegistry) -> None:
        self._database = database
        self._registry = registry
        self._local = tuple(map(administered, registry.definitions()))

    async def list_tools(
        self, actor: Actor, page: PageRequest, *, kind: ToolKind | None
    ) -> Page[AdministeredTool]:
        """Return the tools of one kind or all, by name.

        Errors: InvalidCursorError.
        """
        after = "" if page.cursor is None else decode_cursor(page.cursor, _ORDER, [str])[0]
        part = {"after": after, "most": page.limit + 1}
        found = self._local_after(after) if kind in {None, ToolKind.LOCAL} else []
        async with self._database.statements(actor) as connection:
            if kind in {None, ToolKind.MCP}:
                listed = await _MCP_TOOLS.all(connection, **part)
                found += [administered(mcp_definition_from_row(row)) for row in listed]
            if kind in {None, ToolKind.WORKFLOW}:
                webhooks = await _WORKFLOW_TOOLS.all(connection, **part)
                found += [administered(workflow_definition_from_row(row)) for row in webhooks]
            shown = sorted(found, key=lambda tool: tool.name)[: page.limit]
            names = [tool.name for tool in shown]
            decisions = await _DECISIONS.all(connection, names=names)
        decided = {row.name: row for row in decisions}
        following = encode_cursor(_ORDER, names[-1:]) if len(found) > len(shown) else None
        return Page([with_decision(tool, decided.get(tool.name)) for tool in shown], following)

    async def change(
        self, actor: Actor, name: str, request: ChangeToolRequest, *, versions: Versions
    ) -> Result[AdministeredTool, Conflict | Unreachable]:
        """Decide about a tool; `versions` are those it is meant for."""
        async with self._database.transaction(actor) as session:
            tool = await self._find(session, name)
            if tool is None:
                return Err(Unreachable.MISSING)
            row = await _locked_decision(session, name)
            if not is_meant(row.version, versions):
                return Err(Conflict.VERSION_CHANGED)
            changes = request.changes()
            _apply(row, changes)
            await session.flush()
            record(
                session,
                actor,
                AuditAction.TOOL_CHANGED,
                (ResourceType.TOOL, name),
                details=changed(changes),
            )
        return Ok(with_decision(tool, row))

    async def _find(self, session: AsyncSession, name: str) -> AdministeredTool | None:
        local = self._registry.get(name)
        if local is not None:
            return administered(local.definition)
        server, separator, tool = name.partition(SERVER_SEPARATOR)
        if separator:
            listed = await session.get(McpToolRow, (server, tool))
            return None if listed is None else administered(mcp_definition_from_row(listed))
        webhook = await session.get(WorkflowToolRow, name)
        return None if webhook is None else administered(workflow_definition_from_row(webhook))

    def _local_after(self, after: str) -> list[AdministeredTool]:
        return [tool for tool in self._local if tool.name > after]


async def _locked_decision(session: AsyncSession, name: str) -> ToolSettingsRow:
    """Return the decision about a tool, made up where there is none, so that it can be locked."""
    made = insert(ToolSettingsRow).values(name=name, enabled=True, version=1, updated_at=utc_now())
    await session.exec(made.on_conflict_do_nothing())
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
