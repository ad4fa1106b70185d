"""Owns turning rows of MCP servers into what administrators see, and their secrets into bytes."""

import json
from collections.abc import Mapping

from schema.mcp_servers import McpServer, McpServerStatus, McpTransport, OAuthClient
from schema.tables import McpServerRow


def server_from_row(row: McpServerRow, *, tool_count: int) -> McpServer:
    """Return the server that the row holds."""
    return McpServer(
        name=row.name,
        transport=McpTransport(row.transport),
        command=row.command,
        args=tuple(row.args),
        url=row.url,
        secret_names=tuple(row.secret_names),
        oauth=None if row.oauth is None else OAuthClient.model_validate(row.oauth),
        enabled=row.enabled,
        status=McpServerStatus(row.status),
        problem=row.problem,
        tool_count=tool_count,
        checked_at=row.checked_at,
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def secret_owner(name: str) -> str:
    """Return for whom the secrets of a server are sealed."""
    return f"mcp_server:{name}"


def oauth_owner(name: str) -> str:
    """Return for whom the OAuth client secret of a server is sealed."""
    return f"mcp_server_oauth:{name}"


def secrets_to_bytes(secrets: Mapping[str, str]) -> bytes:
    """Return what `secrets_from_bytes` reads."""
    return json.dumps(dict(secrets)).encode()


def secrets_from_bytes(stored: bytes) -> dict[str, str]:
    """Return the environment or the headers of a server."""
    secrets: dict[str, str] = json.loads(stored)
    return secrets
