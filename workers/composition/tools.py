"""Tools: what describes and decides about them everywhere, and what runs them in workers."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from pydantic import SecretStr

from schema.tools import ToolKind
from services.alerts import OnAlert
from services.auth.accounts import AccountCache
from services.knowledge.search import KnowledgeSearch as Passages
from services.mcp.addresses import HomeDirectories, ServerAddresses
from services.mcp.calls import McpCalls
from services.mcp.pool import McpPool
from services.mcp.refresh import McpRefresh, ToolChanges
from services.mcp.servers import ServerConfigurations, ServerHealth
from services.memories.search import MemorySearch
from services.memories.writing import MemoryWriter
from services.models.gateway import ModelGateway
from services.outgoing.client import OutgoingClient
from services.settings import Settings
from services.tools.calculator import Calculator
from services.tools.catalogue import ToolCatalogue
from services.tools.date_time import DateTime
from services.tools.deep_reasoning.definition import deep_reasoning
from services.tools.definition import LocalTool
from services.tools.executor import ToolExecutor, ToolRunner
from services.tools.knowledge_search import KnowledgeSearch
from services.tools.ledger import ToolLedger
from services.tools.local_tools import LocalTools, WorkerOnlyTool
from services.tools.memory import Recall, Remember
from services.tools.secrets import SecretVault
from services.tools.web_search.definition import web_search
from services.turns.approvals import ToolApprovals
from services.users.preferences import PreferencesReader
from services.workflow_tools.calls import WorkflowToolCalls
from workers.composition.foundation import Foundation

if TYPE_CHECKING:
    from services.models.gateway import ModelGateway
    from services.outgoing.client import OutgoingClient


def make_vault(settings: Settings) -> SecretVault:
    """Return the vault of secrets. Errors: WeakEncryptionKeyError."""
    keys = settings.encryption_keys
    return SecretVault(keys.get_secret_value() if keys else "")


def make_catalogue(foundation: Foundation, local: LocalTools) -> ToolCatalogue:
    """Return the catalogue of all tools."""
    lifetime_s = foundation.settings.account_cache_s
    return ToolCatalogue(foundation.database, local, lifetime_s=lifetime_s)


@asynccontextmanager
async def make_mcp_pool(
    foundation: Foundation, on_alert: OnAlert
) -> AsyncIterator[tuple[McpPool, McpRefresh]]:
    """Open the connections to MCP servers: for calls, and to list their tools.

    Errors: WeakEncryptionKeyError.
    """
    settings, database = foundation.settings, foundation.database
    homes = HomeDirectories(settings.mcp_home)
    addresses = ServerAddresses(
        make_vault(settings),
        homes,
        memory_bytes=settings.mcp_memory_mb * 1024 * 1024,
        processes=settings.mcp_processes,
        commands=settings.mcp_commands or (),
    )
    servers = ServerConfigurations(database, lifetime_s=settings.account_cache_s, on_alert=on_alert)
    allowed_hosts, changes = settings.allowed_private_hosts or (), ToolChanges()
    pool = McpPool(
        servers,
        addresses,
        allowed_hosts=allowed_hosts,
        health=ServerHealth(servers),
        changes=changes,
    )
    refresh = McpRefresh(
        database, addresses, allowed_hosts=allowed_hosts, connections=pool, on_alert=on_alert
    )
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


def make_local_tools(
    foundation: Foundation,
    accounts: AccountCache,
    *,
    gateway: "ModelGateway | None" = None,
    outgoing: "OutgoingClient | None" = None,
    on_alert: OnAlert = lambda: None,
) -> LocalTools:
    """Return the tools that run in workers.

    Without a model gateway or an HTTP client, as in the API, tools that need one are only listed.
    Errors: UnknownPriceError.
    """
    ledger = ToolLedger(foundation.database, on_alert)
    return LocalTools(_tools(foundation, accounts, gateway, outgoing, ledger=ledger))


def _tools(
    foundation: Foundation,
    accounts: AccountCache,
    gateway: "ModelGateway | None",
    outgoing: "OutgoingClient | None",
    *,
    ledger: ToolLedger,
) -> Iterator[LocalTool]:
    """Yield the tools in a stable order: providers cache prompts by it."""
    settings, database, embedder = foundation.settings, foundation.database, foundation.embedder
    preferences = PreferencesReader(database)
    yield Calculator()
    yield DateTime()
    yield Remember(MemoryWriter(database, embedder, accounts))
    yield Recall(MemorySearch(database, embedder), preferences)
    yield KnowledgeSearch(Passages(database, embedder), preferences)
    if settings.deep_reasoning_model:
        yield _deep_reasoning(foundation, settings.deep_reasoning_model, gateway, ledger)
    if settings.brave_api_key:
        yield _web_search(foundation, settings.brave_api_key, outgoing, ledger)


def _deep_reasoning(
    foundation: Foundation, model: str, gateway: "ModelGateway | None", ledger: ToolLedger
) -> LocalTool:
    settings, pricing = foundation.settings, foundation.pricing
    if gateway is None:
        return WorkerOnlyTool(
            deep_reasoning(model, pricing=pricing, max_tokens=settings.deep_reasoning_tokens)
        )
    # Imports the model provider's package, which the API does not need.
    from services.tools.deep_reasoning.tool import DeepReasoning  # noqa: PLC0415

    return DeepReasoning(
        gateway,
        ledger,
        pricing,
        model=model,
        max_tokens=settings.deep_reasoning_tokens,
        effort=settings.deep_reasoning_effort,
    )


def _web_search(
    foundation: Foundation, key: SecretStr, outgoing: "OutgoingClient | None", ledger: ToolLedger
) -> LocalTool:
    settings = foundation.settings
    if outgoing is None:
        return WorkerOnlyTool(web_search(settings.web_search_cost_usd))
    # Imports an HTTP client, which the API does not need.
    from services.tools.web_search.brave import BraveSearch  # noqa: PLC0415
    from services.tools.web_search.tool import SearchQuota, WebSearch  # noqa: PLC0415

    engine = BraveSearch(
        outgoing,
        api_key=key.get_secret_value(),
        base_url=settings.brave_base_url,
        safe=settings.web_search_safe,
    )
    quota = SearchQuota(foundation.database, ledger)
    return WebSearch(engine, quota, cost_usd=settings.web_search_cost_usd)


@dataclass(frozen=True, slots=True)
class WorkerTools:
    """A worker's catalogue and executor of tools, and their HTTP client."""

    catalogue: ToolCatalogue
    executor: ToolExecutor
    mcp_refresh: McpRefresh
    outgoing: OutgoingClient


@asynccontextmanager
async def open_worker_tools(
    foundation: Foundation,
    gateway: ModelGateway,
    more_tools: Sequence[LocalTool],
    on_alert: OnAlert,
) -> AsyncIterator[WorkerTools]:
    """Open the tools of a worker; close them at the end. Errors: WeakEncryptionKeyError."""
    settings = foundation.settings
    accounts = AccountCache(foundation.database, lifetime_s=settings.account_cache_s)
    async with AsyncExitStack() as stack:
        allowed_hosts = settings.allowed_private_hosts or ()
        outgoing = await stack.enter_async_context(OutgoingClient(allowed_hosts=allowed_hosts))
        local = make_local_tools(
            foundation, accounts, gateway=gateway, outgoing=outgoing, on_alert=on_alert
        )
        for tool in more_tools:
            local.add(tool)
        catalogue = make_catalogue(foundation, local)
        pool, mcp_refresh = await stack.enter_async_context(make_mcp_pool(foundation, on_alert))
        runners: dict[ToolKind, ToolRunner] = {
            ToolKind.LOCAL: local,
            ToolKind.MCP: McpCalls(pool),
            ToolKind.WORKFLOW: make_workflow_calls(foundation, outgoing),
        }
        executor = ToolExecutor(catalogue, accounts, runners)
        yield WorkerTools(catalogue, executor, mcp_refresh, outgoing)
