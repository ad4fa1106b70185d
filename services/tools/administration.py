"""Owns what administrators see of all tools, decide about them and try with them.

Where MCP and workflow tools come from is registered by services of their own.
"""

import asyncio
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import structlog
from pydantic import JsonValue
from sqlalchemy import literal
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.audit import AuditAction, ResourceType
from schema.ids import new_id
from schema.pages import Page, PageRequest, decode_cursor, encode_cursor
from schema.result import Err, Ok, Result
from schema.tables import McpToolRow, ToolSettingsRow, WorkflowToolRow
from schema.tables.columns import utc_now
from schema.tools import (
    SERVER_SEPARATOR,
    AdministeredTool,
    ChangeToolRequest,
    TestToolRequest,
    ToolKind,
    ToolTest,
)
from schema.wire import make_storable
from services.audit.recording import record
from services.database import Database
from services.refusals import Conflict, Unreachable
from services.tools.definition import ToolExecution, ToolOutcome
from services.tools.described import local_tool, mcp_tool, with_decision, workflow_tool
from services.tools.refusals import ToolRefusal
from services.tools.registry import ToolRegistry
from services.tools.settings import ToolSettings

_log = structlog.get_logger(__name__)

_ORDER: Final = "name"
_LONGEST_TEST: Final = timedelta(seconds=30)


class ToolAdministration:
    """Administers tools. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, registry: ToolRegistry, settings: ToolSettings) -> None:
        self._database = database
        self._registry = registry
        self._settings = settings

    async def list_tools(
        self, actor: Actor, page: PageRequest, *, kind: ToolKind | None
    ) -> Page[AdministeredTool]:
        """Return the tools of one kind or all, by name.

        Errors: InvalidCursorError.
        """
        after = "" if page.cursor is None else decode_cursor(page.cursor, _ORDER, [str])[0]
        async with self._database.transaction(actor) as session:
            found = [
                *(self._local_after(after) if kind in {None, ToolKind.LOCAL} else ()),
                *(await _mcp_after(session, after, page) if kind in {None, ToolKind.MCP} else ()),
                *(
                    await _workflow_after(session, after, page)
                    if kind in {None, ToolKind.WORKFLOW}
                    else ()
                ),
            ]
            shown = sorted(found, key=lambda tool: tool.name)[: page.limit]
            names = [tool.name for tool in shown]
            query = select(ToolSettingsRow).where(col(ToolSettingsRow.name).in_(names))
            decided = {row.name: row for row in (await session.exec(query)).all()}
        following = encode_cursor(_ORDER, names[-1:]) if len(found) > len(shown) else None
        return Page([with_decision(tool, decided.get(tool.name)) for tool in shown], following)

    async def change(
        self, actor: Actor, name: str, request: ChangeToolRequest, *, version: int | None
    ) -> Result[AdministeredTool, Conflict | Unreachable]:
        """Decide about a tool; `version` is the one that is meant."""
        async with self._database.transaction(actor) as session:
            tool = await self._find(session, name)
            if tool is None:
                return Err(Unreachable.MISSING)
            row = await _locked_decision(session, name)
            if version not in {None, row.version}:
                return Err(Conflict.VERSION_CHANGED)
            changes = request.changes()
            _apply(row, changes)
            await session.flush()
            details = {"changed": sorted(changes)}
            record(
                session,
                actor,
                AuditAction.TOOL_CHANGED,
                (ResourceType.TOOL, name),
                details=details,
            )
        self._settings.forget()
        return Ok(with_decision(tool, row))

    async def test(
        self, actor: Actor, name: str, request: TestToolRequest
    ) -> Result[ToolTest, ToolRefusal | Unreachable]:
        """Run a tool that runs here, switched off or not, and return what it made of the input."""
        async with self._database.transaction(actor) as session:
            tool = await self._find(session, name)
            if tool is None:
                return Err(Unreachable.MISSING)
            if tool.kind is not ToolKind.LOCAL:
                return Err(ToolRefusal.NOT_TESTABLE)
            record(session, actor, AuditAction.TOOL_TESTED, (ResourceType.TOOL, name))
        started = time.monotonic()
        execution = ToolExecution(actor=actor, key=f"test:{new_id()}")
        outcome = await self._run(name, request.input, execution)
        return Ok(
            ToolTest(
                output=make_storable(outcome.output),
                is_error=outcome.is_error,
                duration_ms=round((time.monotonic() - started) * 1000),
            )
        )

    async def _run(
        self, name: str, tool_input: Mapping[str, JsonValue], execution: ToolExecution
    ) -> ToolOutcome:
        tool = self._registry.get(name)
        limit = _LONGEST_TEST if tool is None else min(_LONGEST_TEST, tool.definition.timeout)
        try:
            async with asyncio.timeout(limit.total_seconds()):
                return await self._registry.run(name, tool_input, execution)
        except TimeoutError:
            seconds = f"{limit.total_seconds():g}"
            return ToolOutcome(output=f"It did not answer within {seconds} s.", is_error=True)
        except Exception as error:  # noqa: BLE001 -- that a tool fails is what a test finds out
            _log.warning("tool_test_failed", tool=name, exc_info=error)
            return ToolOutcome(output=f"It failed: {type(error).__name__}.", is_error=True)

    async def _find(self, session: AsyncSession, name: str) -> AdministeredTool | None:
        local = self._registry.get(name)
        if local is not None:
            return local_tool(local.definition)
        server, separator, tool = name.partition(SERVER_SEPARATOR)
        if separator:
            listed = await session.get(McpToolRow, (server, tool))
            return None if listed is None else mcp_tool(listed)
        webhook = await session.get(WorkflowToolRow, name)
        return None if webhook is None else workflow_tool(webhook)

    def _local_after(self, after: str) -> list[AdministeredTool]:
        return [local_tool(tool) for tool in self._registry.definitions() if tool.name > after]


async def _mcp_after(
    session: AsyncSession, after: str, page: PageRequest
) -> list[AdministeredTool]:
    # Names are compared byte for byte, as they are when the kinds are merged.
    name = (col(McpToolRow.server) + literal(SERVER_SEPARATOR) + col(McpToolRow.name)).collate("C")
    query = select(McpToolRow).where(name > after).order_by(name).limit(page.limit + 1)
    return [mcp_tool(row) for row in (await session.exec(query)).all()]


async def _workflow_after(
    session: AsyncSession, after: str, page: PageRequest
) -> list[AdministeredTool]:
    name = col(WorkflowToolRow.name).collate("C")
    query = select(WorkflowToolRow).where(name > after).order_by(name).limit(page.limit + 1)
    return [workflow_tool(row) for row in (await session.exec(query)).all()]


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
    row.version += 1
    row.updated_at = utc_now()
