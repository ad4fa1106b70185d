"""Owns putting the activities together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from temporalio.client import Client

from activities.erasure import ErasureActivities
from activities.knowledge import IngestionActivities, IngestionSweepActivities
from activities.mcp import McpActivities
from activities.reembedding import ReembeddingActivities
from activities.sweep import SweepActivities
from activities.turns import ToolActivities, TurnActivities
from services.contexts.offer import ToolOffer
from services.knowledge.extraction.documents import ExtractionLimits
from services.knowledge.extraction.extractor import Extractor
from services.knowledge.ingestion import Ingestion
from services.knowledge.stranded import StrandedIngestionSearch
from services.mistakes import MissingApiKeyError
from services.models.gateway import ModelGateway
from services.reembedding.service import Reembedding
from services.tools.local import default_tools
from services.turns.erasure import Erasure
from services.turns.model_calls import ModelCalls
from services.turns.steps import Steps
from services.turns.stranded import StrandedTurnSearch
from services.turns.tool_calls import ToolCalls
from workers.composition.contexts import make_preparation
from workers.composition.foundation import Foundation
from workers.composition.tools import make_mcp_refresh, make_tool_settings


@dataclass(frozen=True, slots=True)
class Activities:
    """The activity classes, ready to be registered."""

    turns: TurnActivities
    tools: ToolActivities
    sweep: SweepActivities
    mcp: McpActivities
    erasure: ErasureActivities
    ingestion: IngestionActivities
    ingestion_sweep: IngestionSweepActivities
    reembedding: ReembeddingActivities


@asynccontextmanager
async def open_activities(foundation: Foundation, client: Client) -> AsyncIterator[Activities]:
    """Make the activity classes.

    Errors: MissingApiKeyError.
    """
    settings, database = foundation.settings, foundation.database
    if settings.anthropic_api_key is None:
        raise MissingApiKeyError
    gateway = ModelGateway(
        api_key=settings.anthropic_api_key.get_secret_value(),
        base_url=settings.anthropic_base_url,
        idle_timeout_s=settings.model_idle_timeout_s,
        connections=settings.max_concurrent_model_calls,
    )
    tools = default_tools()
    model_calls = ModelCalls(
        steps=Steps(database, foundation.pricing),
        gateway=gateway,
        events=foundation.events,
        tools=tools,
        max_output_tokens=settings.max_output_tokens,
        attempts=settings.model_attempts,
        delta_interval_s=settings.delta_interval_ms / 1000,
    )
    offer = ToolOffer(tools, make_tool_settings(foundation))
    preparation = make_preparation(foundation, offer)
    try:
        yield Activities(
            turns=TurnActivities(preparation, model_calls, foundation.ending),
            tools=ToolActivities(ToolCalls(database, foundation.events, tools)),
            mcp=McpActivities(make_mcp_refresh(foundation)),
            sweep=SweepActivities(client, StrandedTurnSearch(database)),
            erasure=ErasureActivities(client, Erasure(database, foundation.events)),
            ingestion=IngestionActivities(_ingestion(foundation)),
            ingestion_sweep=IngestionSweepActivities(client, StrandedIngestionSearch(database)),
            reembedding=ReembeddingActivities(Reembedding(database, foundation.embedder)),
        )
    finally:
        await gateway.close()


def _ingestion(foundation: Foundation) -> Ingestion:
    limits = ExtractionLimits(document_bytes=foundation.settings.max_document_bytes)
    return Ingestion(foundation.database, Extractor(limits), foundation.embedder)
