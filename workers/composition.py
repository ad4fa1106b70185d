"""Owns putting the processes together: from settings to services, the only place that does it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from activities.sweep import SweepActivities
from activities.turns import ToolActivities, TurnActivities
from api.dependencies import ApiServices
from api.turn_starter import TurnStarter
from services.auth.passwords import Passwords
from services.auth.service import AuthService
from services.auth.tokens import AccessTokens
from services.chats.service import ChatService
from services.database import Database
from services.events.feed import EventFeed
from services.events.hub import EventHub
from services.events.snapshots import Snapshots
from services.events.writer import EventWriter
from services.ledger import Ledger
from services.models.gateway import ModelGateway
from services.models.pricing import Pricing
from services.settings import Settings
from services.tools.local import default_tools
from services.turns.acceptance import Limits, TurnAcceptance
from services.turns.cancellation import TurnCancellation
from services.turns.ending import TurnEnding
from services.turns.model_calls import ModelCalls
from services.turns.preparation import TurnPreparation, TurnRules
from services.turns.steps import Steps
from services.turns.stranded import StrandedTurnSearch
from services.turns.tool_calls import ToolCalls

_REDIS_TIMEOUT_S: Final = 1.0


class MissingApiKeyError(Exception):
    """No model can be called."""

    def __init__(self) -> None:
        super().__init__(
            "ANTHROPIC_API_KEY is not set. Set it, or run `everturn dev`, which has a demo model."
        )


@dataclass(frozen=True, slots=True)
class Foundation:
    """What every process has: connections and what is made of them alone."""

    settings: Settings
    database: Database
    redis: Redis
    events: EventWriter
    pricing: Pricing
    ending: TurnEnding


@dataclass(frozen=True, slots=True)
class Activities:
    """The activity classes, ready to be registered."""

    turns: TurnActivities
    tools: ToolActivities
    sweep: SweepActivities


@asynccontextmanager
async def open_foundation(settings: Settings) -> AsyncIterator[Foundation]:
    """Open what every process has, and close it at the end.

    Errors: UnknownPriceError for a model that can't be priced.
    """
    pricing = Pricing(settings.model_prices)
    fallback = (settings.fallback_model,) if settings.fallback_model else ()
    pricing.require((*settings.models, settings.default_model, *fallback))
    async with AsyncExitStack() as stack:
        database = Database(settings.database_url.get_secret_value())
        stack.push_async_callback(database.close)
        redis = Redis.from_url(
            settings.redis_url.get_secret_value(),
            socket_timeout=_REDIS_TIMEOUT_S,
            socket_connect_timeout=_REDIS_TIMEOUT_S,
            # A second try belongs to those who know what it may double.
            retry=Retry(NoBackoff(), 0),
        )
        stack.push_async_callback(redis.aclose)
        events = EventWriter(redis, retention_s=settings.event_retention_s)
        ending = TurnEnding(database, events, Ledger(pricing))
        yield Foundation(settings, database, redis, events, pricing, ending)


async def connect_temporal(settings: Settings, *, lazy: bool) -> Client:
    """Return a client; a lazy one connects with its first call.

    Errors: RuntimeError where Temporal can't be reached and `lazy` is not set.
    """
    return await Client.connect(
        settings.temporal_address,
        namespace=settings.temporal_namespace,
        data_converter=pydantic_data_converter,
        lazy=lazy,
    )


@asynccontextmanager
async def open_api_services(
    foundation: Foundation, client: Client, *, eager: bool
) -> AsyncIterator[ApiServices]:
    """Make what the routes call.

    Errors: WeakSecretError.
    """
    settings, database = foundation.settings, foundation.database
    secret = settings.auth_secret.get_secret_value() if settings.auth_secret else ""
    tokens = AccessTokens(secret, lifetime=timedelta(minutes=settings.access_token_minutes))
    async with EventHub(foundation.redis) as hub:
        yield ApiServices(
            database=database,
            redis=foundation.redis,
            access_tokens=tokens,
            auth=AuthService(
                database,
                tokens,
                Passwords(),
                refresh_lifetime=timedelta(days=settings.refresh_token_days),
            ),
            chats=ChatService(database),
            acceptance=TurnAcceptance(database, _limits(settings)),
            cancellation=TurnCancellation(database),
            ending=foundation.ending,
            feed=EventFeed(hub, Snapshots(database), keep_alive_s=settings.keep_alive_s),
            starter=TurnStarter(client, eager=eager),
            answer_wait_s=settings.answer_wait_s,
        )


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
        steps=Steps(database, Ledger(foundation.pricing)),
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


def _limits(settings: Settings) -> Limits:
    return Limits(
        max_content_chars=settings.max_content_chars,
        max_queued_turns=settings.max_queued_turns,
        models=settings.models,
        default_model=settings.default_model,
    )


def _rules(settings: Settings) -> TurnRules:
    return TurnRules(
        max_steps=settings.max_steps,
        prompt_tokens=settings.prompt_tokens,
        fallback_model=settings.fallback_model,
    )
