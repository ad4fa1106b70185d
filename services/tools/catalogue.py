"""Owns which tools there are, of every kind: in this process, on MCP servers, behind webhooks.

With them come the decisions of administrators; who may use which is `permission.py`'s. Triggers of
the database count every change, so that a process learns of one at its next turn.
"""

from typing import Final

from cachetools import TTLCache
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
from schema.tools import ToolDefinition
from services.database import Database
from services.tools.registry import ToolRegistry
from services.tools.rows import (
    mcp_definition_from_row,
    setting_from_row,
    workflow_definition_from_row,
)
from services.tools.snapshot import KnownTools

_ALL: Final = "all"


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
    return [
        *map(mcp_definition_from_row, mcp),
        *map(workflow_definition_from_row, workflow),
    ]
