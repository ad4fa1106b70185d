"""Composition of the tools that run in workers."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import SecretStr

from services.auth.accounts import AccountCache
from services.knowledge.search import KnowledgeSearch as Passages
from services.memories.search import MemorySearch
from services.memories.writing import MemoryWriter
from services.tools.calculator import Calculator
from services.tools.date_time import DateTime
from services.tools.deep_reasoning.definition import deep_reasoning
from services.tools.definition import LocalTool
from services.tools.knowledge_search import KnowledgeSearch
from services.tools.ledger import ToolLedger
from services.tools.local_tools import LocalTools, WorkerOnlyTool
from services.tools.memory import Recall, Remember
from services.tools.web_search.definition import web_search
from services.users.preferences import PreferencesReader
from workers.composition.foundation import Foundation

if TYPE_CHECKING:
    from services.models.gateway import ModelGateway
    from services.outgoing.client import OutgoingClient


def make_local_tools(
    foundation: Foundation,
    accounts: AccountCache,
    *,
    gateway: "ModelGateway | None" = None,
    outgoing: "OutgoingClient | None" = None,
) -> LocalTools:
    """Return the tools that run in workers.

    Without a model gateway or an HTTP client, as in the API, tools that need one are only listed.
    Errors: UnknownPriceError.
    """
    return LocalTools(_tools(foundation, accounts, gateway, outgoing))


def _tools(
    foundation: Foundation,
    accounts: AccountCache,
    gateway: "ModelGateway | None",
    outgoing: "OutgoingClient | None",
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
        yield _deep_reasoning(foundation, settings.deep_reasoning_model, gateway)
    if settings.brave_api_key:
        yield _web_search(foundation, settings.brave_api_key, outgoing)


def _deep_reasoning(
    foundation: Foundation, model: str, gateway: "ModelGateway | None"
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
        ToolLedger(foundation.database),
        pricing,
        model=model,
        max_tokens=settings.deep_reasoning_tokens,
        effort=settings.deep_reasoning_effort,
    )


def _web_search(
    foundation: Foundation, key: SecretStr, outgoing: "OutgoingClient | None"
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
    quota = SearchQuota(foundation.database, ToolLedger(foundation.database))
    return WebSearch(engine, quota, cost_usd=settings.web_search_cost_usd)
