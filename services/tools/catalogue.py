"""Owns which tools there are, of every kind: in this process, on MCP servers, behind webhooks.

Who may use which is `permission.py`'s.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from cachetools import TTLCache
from pydantic import JsonValue
from sqlmodel import col, select

from schema.actors import SERVICE
from schema.tables import McpServerRow, McpToolRow, WorkflowToolRow
from services.database import Database
from services.tools.definition import ApprovalPolicy, RetryClass, ToolDefinition, ToolKind
from services.tools.described import qualified_name
from services.tools.registry import ToolRegistry

_ALL: Final = "all"
MCP_TIMEOUT: Final = timedelta(seconds=60)
"""How long a call of an MCP server's tool may take, unless an administrator says otherwise."""


class ToolCatalogue:
    """Knows all tools, remembered for moments. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, local: ToolRegistry, *, lifetime_s: float) -> None:
        self._database = database
        self._local = local
        self._known: TTLCache[str, Mapping[str, ToolDefinition]] = TTLCache(1, lifetime_s)

    async def definitions(self) -> tuple[ToolDefinition, ...]:
        """Return what each tool is, in an order that stays the same: prompts are cached by it."""
        return tuple((await self._all()).values())

    async def find(self, name: str) -> ToolDefinition | None:
        """Return the tool of this name, if there is one."""
        local = self._local.get(name)
        return (await self._all()).get(name) if local is None else local.definition

    def forget(self) -> None:
        """Ask anew at this process's next request or turn."""
        self._known.clear()

    async def _all(self) -> Mapping[str, ToolDefinition]:
        known = self._known.get(_ALL)
        if known is not None:
            return known
        local = self._local.definitions()
        tools = {tool.name: tool for tool in (*local, *await self._registered())}
        self._known[_ALL] = tools
        return tools

    async def _registered(self) -> list[ToolDefinition]:
        of_servers = (
            select(McpToolRow)
            .join(McpServerRow, col(McpServerRow.name) == col(McpToolRow.server))
            .where(col(McpServerRow.enabled))
            .order_by(col(McpToolRow.server), col(McpToolRow.name))
        )
        webhooks = (
            select(WorkflowToolRow)
            .where(col(WorkflowToolRow.enabled))
            .order_by(col(WorkflowToolRow.name))
        )
        # They are the same for everybody; where webhooks are is for nobody else to know.
        async with self._database.transaction(SERVICE) as session:
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
        timeout=MCP_TIMEOUT,
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
