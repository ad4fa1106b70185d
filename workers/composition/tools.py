"""Owns putting together what decides about tools, and what speaks with MCP servers."""

from services.auth.standing import Standings
from services.mcp.refresh import McpRefresh
from services.settings import Settings
from services.tools.registry import ToolRegistry
from services.tools.secrets import SecretVault
from services.tools.service import ToolService
from services.tools.settings import ToolSettings
from workers.composition.foundation import Foundation


def make_vault(settings: Settings) -> SecretVault:
    """Return what seals secrets. Errors: WeakEncryptionKeyError."""
    keys = settings.encryption_keys
    return SecretVault(keys.get_secret_value() if keys else "")


def make_tool_settings(foundation: Foundation) -> ToolSettings:
    """Return what administrators decided about tools, as this process remembers it."""
    return ToolSettings(foundation.database, lifetime_s=foundation.settings.standing_lifetime_s)


def make_tool_service(
    foundation: Foundation,
    registry: ToolRegistry,
    standings: Standings,
    decisions: ToolSettings,
) -> ToolService:
    """Return what knows which tools users have."""
    return ToolService(
        foundation.database,
        registry,
        standings,
        decisions,
        lifetime_s=foundation.settings.standing_lifetime_s,
    )


def make_mcp_refresh(foundation: Foundation) -> McpRefresh:
    """Return what lists the tools of MCP servers. Errors: WeakEncryptionKeyError."""
    return McpRefresh(
        foundation.database,
        make_vault(foundation.settings),
        allowed_hosts=foundation.settings.allowed_private_hosts or (),
    )
