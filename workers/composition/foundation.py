"""The foundation of every process: connections, and what needs only these."""

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.runtime import (
    LogForwardingConfig,
    LoggingConfig,
    Runtime,
    TelemetryConfig,
    TelemetryFilter,
)

from services import metrics
from services.database import Database
from services.embeddings import Embedder, Purpose, make_embedder
from services.events.writer import EventWriter
from services.models.context_windows import ContextWindows
from services.models.pricing import Pricing
from services.settings import Settings
from services.turns.ending import TurnEnding
from workers.process_metrics import sdk_metrics

_REDIS_TIMEOUT_S: Final = 1.0
_REDIS_CONNECTIONS: Final = 100


@dataclass(frozen=True, slots=True)
class Foundation:
    """What every process has: connections, and what needs only these."""

    settings: Settings
    database: Database
    redis: Redis
    events: EventWriter
    pricing: Pricing
    windows: ContextWindows
    ending: TurnEnding
    embedder: Embedder


@asynccontextmanager
async def open_foundation(settings: Settings) -> AsyncIterator[Foundation]:
    """Open what every process has, and close it at the end.

    Errors: UnknownPriceError for a model that can't be priced.
    """
    pricing = Pricing(settings.model_prices)
    fallback = (settings.fallback_model,) if settings.fallback_model else ()
    memories = (settings.model_of_memories,) if settings.memory_extraction else ()
    reasoning = (settings.deep_reasoning_model,) if settings.deep_reasoning_model else ()
    models = (*settings.models, settings.default_model, *fallback, *memories, *reasoning)
    pricing.require(models)
    metrics.expect(models)
    windows = ContextWindows(settings.context_windows, max_output_tokens=settings.max_output_tokens)
    async with AsyncExitStack() as stack:
        database = Database(settings.database_url.get_secret_value())
        stack.push_async_callback(database.close)
        redis = _open_redis(settings)
        stack.push_async_callback(redis.aclose)
        events = EventWriter(redis, retention_s=settings.event_retention_s)
        ending = TurnEnding(database, events)
        embedder = _make_embedder(settings)
        stack.push_async_callback(embedder.close)
        yield Foundation(settings, database, redis, events, pricing, windows, ending, embedder)


def _open_redis(settings: Settings) -> Redis:
    """Return a client of few connections: a crowd waits for one of them, instead of an error."""
    pool = BlockingConnectionPool.from_url(
        settings.redis_url.get_secret_value(),
        max_connections=_REDIS_CONNECTIONS,
        timeout=_REDIS_TIMEOUT_S,
        socket_timeout=_REDIS_TIMEOUT_S,
        socket_connect_timeout=_REDIS_TIMEOUT_S,
        # Retries are left to callers, who know whether a repetition is safe.
        retry=Retry(NoBackoff(), 0),
    )
    return Redis.from_pool(pool)


async def warm_up(foundation: Foundation) -> None:
    """Load the model that embeds in this process: else the first turn would wait for it."""
    if foundation.settings.embedder == "embedded":
        await foundation.embedder.embed(("warm",), purpose=Purpose.QUERY)


def _make_embedder(settings: Settings) -> Embedder:
    voyage, openai = settings.voyage_api_key, settings.openai_api_key
    return make_embedder(
        settings.embedder,
        model=settings.embedding_model or None,
        base_url=settings.embedding_base_url or None,
        dimensions=settings.embedding_dimensions,
        voyage_api_key=voyage.get_secret_value() if voyage else None,
        openai_api_key=openai.get_secret_value() if openai else None,
        timeout_s=settings.embedding_timeout_s,
    )


@cache
def _runtime(*, has_metrics: bool) -> Runtime:
    """Return the one runtime of the SDK's native core, whose logs join all others."""
    forwarding = LogForwardingConfig(logger=logging.getLogger("temporalio.core"))
    return Runtime(
        telemetry=TelemetryConfig(
            logging=LoggingConfig(
                filter=TelemetryFilter(core_level="WARN", other_level="ERROR"),
                forwarding=forwarding,
            ),
            metrics=sdk_metrics() if has_metrics else None,
            attach_service_name=False,
        )
    )


async def connect_temporal(settings: Settings, *, lazy: bool) -> Client:
    """Return a client; a lazy one connects with its first call.

    Errors: RuntimeError where Temporal can't be reached and `lazy` is not set.
    """
    return await Client.connect(
        settings.temporal_address,
        namespace=settings.temporal_namespace,
        data_converter=pydantic_data_converter,
        runtime=_runtime(has_metrics=settings.metrics_port > 0),
        lazy=lazy,
    )
