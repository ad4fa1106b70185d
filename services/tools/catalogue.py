"""Owns which tools there are, of every kind: in this process, on MCP servers, behind webhooks.

With them come the decisions of administrators; who may use which is `permission.py`'s. Triggers of
the database count every change, so that a process learns of one at its next turn.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from cachetools import TTLCache
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
from schema.users import UserRole
from services.database import Database
from services.tools.definition import ApprovalPolicy, RetryClass, ToolDefinition, ToolKind
from services.tools.described import qualified_name
from services.tools.known import KnownTools
from services.tools.permission import ToolSetting
from services.tools.registry import ToolRegistry

_ALL: Final = "all"
_MCP_TIMEOUT: Final = timedelta(seconds=60)
"""How long a call of an MCP server's tool may take, unless an administrator says otherwise."""


class ToolCatalogue:
    """Knows all tools, remembered for moments. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, local: ToolRegistry, *, lifetime_s: float) -> None:
        self._database = database
        self._local = local
        self._remembered: TTLCache[str, KnownTools] = TTLCache(1, lifetime_s)

    async def known(self, *, version: int | None = None) -> KnownTools:
        """Return the tools as they are, or were some moments ago; at `version` at least."""
        remembered = self._remembered.get(_ALL)
        if remembered is not None and (version is None or remembered.version >= version):
            return remembered
        # They are the same for everybody; where webhooks are is for nobody else to know.
        async with self._database.transaction(SERVICE) as session:
            found = await self._read(session)
        self._remembered[_ALL] = found
        return found

    async def current(self) -> KnownTools:
        """Return the tools as they are now."""
        async with self._database.transaction(SERVICE) as session:
            version = await _version(session)
        return await self.known(version=version)

    async def _read(self, session: AsyncSession) -> KnownTools:
        # The version first: what changes while the rest is read is read again.
        version = await _version(session)
        tools = (*self._local.definitions(), *await _registered(session))
        settings = (await session.exec(select(ToolSettingsRow))).all()
        return KnownTools(
            definitions={tool.name: tool for tool in tools},
            decisions={row.name: setting_from_row(row) for row in settings},
            version=version,
        )


async def _version(session: AsyncSession) -> int:
    return (await session.exec(select(ToolCatalogueRow.version))).one()


async def _registered(session: AsyncSession) -> list[ToolDefinition]:
    of_servers = (
        select(McpToolRow)
        .join(McpServerRow, col(McpServerRow.name) == col(McpToolRow.server))
        .where(col(McpServerRow.enabled))
        .order_by(col(McpToolRow.server), col(McpToolRow.name))
    )
    webhooks = (
        select(WorkflowToolRow).where(col(WorkflowToolRow.enabled)).order_by(WorkflowToolRow.name)
    )
    mcp = (await session.exec(of_servers)).all()
    workflow = (await session.exec(webhooks)).all()
    return [*map(mcp_definition, mcp), *map(workflow_definition, workflow)]


def mcp_definition(row: McpToolRow) -> ToolDefinition:
    """Return a tool of an MCP server as it is run."""
    return ToolDefinition(
        name=qualified_name(row.server, row.name),
        description=row.description,
        input_schema=_schema(row.input_schema),
        kind=ToolKind.MCP,
        server=row.server,
        timeout=_MCP_TIMEOUT,
        retry_class=RetryClass(row.retry_class),
    )


def workflow_definition(row: WorkflowToolRow) -> ToolDefinition:
    """Return a webhook as a tool that is run."""
    return ToolDefinition(
        name=row.name,
        description=row.description,
        input_schema=_schema(row.input_schema),
        kind=ToolKind.WORKFLOW,
        timeout=timedelta(seconds=row.timeout_s),
        retry_class=RetryClass(row.retry_class),
        approval=ApprovalPolicy(row.approval),
    )


def _schema(stored: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return a schema as providers take it: of an object, whatever else it says or does not."""
    return {"type": "object", **stored}


def setting_from_row(row: ToolSettingsRow) -> ToolSetting:
    """Return the decision that the row holds."""
    return ToolSetting(
        enabled=row.enabled,
        approval=None if row.approval is None else ApprovalPolicy(row.approval),
        roles=None if row.roles is None else frozenset(map(UserRole, row.roles)),
        retry_class=None if row.retry_class is None else RetryClass(row.retry_class),
        timeout_s=row.timeout_s,
        cost_usd=row.cost_usd,
    )
