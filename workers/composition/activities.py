"""Owns putting the activities together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from temporalio.client import Client

from activities.sweep import SweepActivities
from activities.turns import ToolActivities, TurnActivities
from services.mistakes import MissingApiKeyError
from services.models.gateway import ModelGateway
from services.settings import Settings
from services.tools.local import default_tools
from services.turns.model_calls import ModelCalls
from services.turns.preparation import TurnPreparation, TurnRules
from services.turns.steps import Steps
from services.turns.stranded import StrandedTurnSearch
from services.turns.tool_calls import ToolCalls
from workers.composition.foundation import Foundation


@dataclass(frozen=True, slots=True)
class Activities:
    """The activity classes, ready to be registered."""

    turns: TurnActivities
    tools: ToolActivities
    sweep: SweepActivities


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
    preparation = TurnPreparation(database, foundation.events, tools, _rules(settings))
    try:
        yield Activities(
            turns=TurnActivities(preparation, model_calls, foundation.ending),
            tools=ToolActivities(ToolCalls(database, foundation.events, tools)),
            sweep=SweepActivities(client, StrandedTurnSearch(database)),
        )
    finally:
        await gateway.close()


def _rules(settings: Settings) -> TurnRules:
    return TurnRules(
        max_steps=settings.max_steps,
        prompt_tokens=settings.prompt_tokens,
        fallback_model=settings.fallback_model,
    )
