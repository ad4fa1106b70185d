"""The foundation of every process: connections, and what needs only these."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from redis.asyncio import BlockingConnectionPool, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from schema.names import Work
from services import metrics
from services.database import Database
from services.database.startup import explained
from services.embeddings import Embedder, Purpose, make_embedder
from services.events.writer import EventWriter
from services.models.context_windows import ContextWindows
from services.models.pricing import Pricing
from services.settings import Settings
from services.setup_errors import SetupError
from services.turns.ending import TurnEnding

_REDIS_TIMEOUT_S: Final = 1.0
_REDIS_CONNECTIONS: Final = 100


class RedisUrlError(SetupError):
    """The URL of Redis, or a certificate that it names, can't be used."""

    def __init__(self, error: OSError | ValueError) -> None:
        detail = f"{error.filename or 'a certificate'}: " if isinstance(error, OSError) else ""
        detail += str(getattr(error, "strerror", None) or error).rstrip(".")
        super().__init__(f"REDIS_URL can't be used: {detail}.")


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

    Errors: UnknownPriceError for a model that can't be priced; DatabaseSetupError, RedisUrlError
    for a URL that can't be used.
    """
    pricing = Pricing(settings.model_prices)
    fallback = (settings.fallback_model,) if settings.fallback_model else ()
    reasoning = (settings.deep_reasoning_model,) if settings.deep_reasoning_model else ()
    models = (*settings.models, settings.default_model, *fallback, settings.cheap_model, *reasoning)
    pricing.require(models)
    metrics.expect(models)
    windows = ContextWindows(settings.context_windows, max_output_tokens=settings.max_output_tokens)
    async with AsyncExitStack() as stack:
        url = settings.database_url.get_secret_value()
        with explained(url, variable="DATABASE_URL"):
            database = Database(url)
        stack.push_async_callback(database.close)
        redis = open_redis(settings)
        stack.push_async_callback(redis.aclose)
        events = EventWriter(redis, retention_s=settings.event_retention_s)
        ending = TurnEnding(database, events, works=_works_after_turns(settings))
        embedder = _make_embedder(settings)
        stack.push_async_callback(embedder.close)
        yield Foundation(settings, database, redis, events, pricing, windows, ending, embedder)


def open_redis(settings: Settings) -> Redis:
    """Return a client of few connections: a crowd waits for one of them, instead of an error.

    Errors: RedisUrlError.
    """
    try:
        pool = BlockingConnectionPool.from_url(
            settings.redis_url.get_secret_value(),
            max_connections=_REDIS_CONNECTIONS,
            timeout=_REDIS_TIMEOUT_S,
            socket_timeout=_REDIS_TIMEOUT_S,
            socket_connect_timeout=_REDIS_TIMEOUT_S,
            # Retries are left to callers, who know whether a repetition is safe.
            retry=Retry(NoBackoff(), 0),
        )
        if issubclass(pool.connection_class, SSLConnection):
            # Reads the files of certificates, which the first connection would do.
            pool.connection_class(**pool.connection_kwargs).ssl_context.get()
    except (OSError, ValueError) as error:
        raise RedisUrlError(error) from error
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


def _works_after_turns(settings: Settings) -> frozenset[Work]:
    """Return what may be due after a turn."""
    switches = {
        Work.EXTRACT_MEMORIES: settings.memory_extraction,
        Work.TITLE_CHAT: True,
        Work.COMPACT_CHAT: settings.compaction,
    }
    return frozenset(work for work, is_on in switches.items() if is_on)
