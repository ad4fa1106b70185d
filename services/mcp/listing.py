"""Owns one conversation with an MCP server: connect, list all tools, leave; all of it bounded."""

from collections.abc import Collection
from time import monotonic

from mcp_types import Tool

from services.mcp.addresses import ServerAddress, Timeouts
from services.mcp.connection import Connection
from services.mcp.errors import McpServerError, SessionLostError


async def list_tools(
    address: ServerAddress, *, allowed_hosts: Collection[str], timeouts: Timeouts
) -> list[Tool]:
    """Return all tools that a server lists.

    Errors: McpServerError for whatever the server does wrong, in words without its secrets.
    """
    connection = Connection(address, allowed_hosts=allowed_hosts, timeouts=timeouts)
    try:
        began_at = monotonic()
        await connection.open()
        return await connection.list_tools(spent_s=monotonic() - began_at)
    except SessionLostError as error:
        raise McpServerError("It forgets its sessions.") from error
    finally:
        await connection.close()
