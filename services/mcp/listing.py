"""Owns one conversation with an MCP server: connect, list all tools, leave; all of it bounded."""

from collections.abc import Collection

from mcp_types import Tool

from services.mcp.addresses import ServerAddress, Timeouts
from services.mcp.connection import Connection


async def list_tools(
    address: ServerAddress, *, allowed_hosts: Collection[str], timeouts: Timeouts
) -> list[Tool]:
    """Return all tools that a server lists.

    Errors: McpServerError for whatever the server does wrong, in words without its secrets.
    """
    connection = Connection(address, allowed_hosts=allowed_hosts, timeouts=timeouts)
    try:
        await connection.open()
        return await connection.list_tools()
    finally:
        await connection.close()
