"""Composition of the catalogue of tools, MCP servers, webhooks and approvals."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from services.mcp.addresses import HomeDirectories, ServerAddresses
from services.mcp.pool import McpPool
from services.mcp.refresh import McpRefresh, ToolChanges
from services.mcp.servers import ServerConfigurations, ServerHealth
from services.outgoing.client import OutgoingClient
from services.settings import Settings
from services.tools.catalogue import ToolCatalogue
from services.tools.local_tools import LocalTools
from services.tools.secrets import SecretVault
from services.turns.approvals import ToolApprovals
from services.workflow_tools.calls import WorkflowToolCalls
from workers.composition.foundation import Foundation


def make_vault(settings: Settings) -> SecretVault:
    """Return the vault of secrets. Errors: WeakEncryptionKeyError."""
    keys = settings.encryption_keys
    return SecretVault(keys.get_secret_value() if keys else "")


def make_catalogue(foundation: Foundation, local: LocalTools) -> ToolCatalogue:
    """Return the catalogue of all tools."""
    lifetime_s = foundation.settings.account_cache_s
    return ToolCatalogue(foundation.database, local, lifetime_s=lifetime_s)


@asynccontextmanager
async def make_mcp_pool(foundation: Foundation) -> AsyncIterator[tuple[McpPool, McpRefresh]]:
    """Open the connections to MCP servers: for calls, and to list their tools.

    Errors: WeakEncryptionKeyError.
    """
    settings, database = foundation.settings, foundation.database
    homes = HomeDirectories(settings.mcp_home)
    memory_bytes = settings.mcp_memory_mb * 1024 * 1024
    addresses = ServerAddresses(make_vault(settings), homes, memory_bytes=memory_bytes)
    servers = ServerConfigurations(database, lifetime_s=settings.account_cache_s)
    allowed_hosts, changes = settings.allowed_private_hosts or (), ToolChanges()
    pool = McpPool(
        servers,
        addresses,
        allowed_hosts=allowed_hosts,
        health=ServerHealth(servers),
        changes=changes,
    )
    refresh = McpRefresh(database, addresses, allowed_hosts=allowed_hosts, connections=pool)
    changes.refresh_with(refresh.refresh)
    async with pool:
        yield pool, refresh


def make_workflow_calls(foundation: Foundation, outgoing: OutgoingClient) -> WorkflowToolCalls:
    """Return the client of webhooks. Errors: WeakEncryptionKeyError."""
    settings = foundation.settings
    return WorkflowToolCalls(
        foundation.database,
        make_vault(settings),
        outgoing,
        public_url=settings.public_url or f"http://127.0.0.1:{settings.api_port}",
    )


def make_approvals(foundation: Foundation) -> ToolApprovals:
    """Return the service of approvals."""
    expiry = timedelta(hours=foundation.settings.approval_hours)
    return ToolApprovals(foundation.database, foundation.events, expiry=expiry)
