"""Health: whether the process runs, and which dependencies respond."""

import asyncio
from enum import StrEnum

from fastapi import Request, Response
from pydantic import Field
from redis.exceptions import RedisError

from api.dependencies import Operations, Temporal
from api.envelope import Envelope, envelope
from api.openapi import error_docs
from api.routing import GroupRouter
from api.service_groups import OperationServices
from schema.wire import WireModel
from services.database import DatabaseUnavailableError

router = GroupRouter("/health", tag="health")


class Health(StrEnum):
    """Health status."""

    OK = "ok"
    DEGRADED = "degraded"
    UNAVAILABLE = "unavailable"


class Liveness(WireModel):
    """The process responds."""

    status: Health = Health.OK


class Readiness(WireModel):
    """Whether requests can be served, the health of each dependency, and what is wrong.

    A process that is about to stop is `unavailable`; what it is sent is served all the same.
    Without Redis, streams are read from the database; without Temporal, messages are accepted and
    run later: both are `degraded`. Without the database nothing can be served.
    """

    status: Health
    database: Health
    redis: Health
    temporal: Health
    problems: tuple[str, ...] = Field(
        (), description="What is wrong, and what to do about it; a sentence each."
    )


@router.get("/live", name="health.live", summary="Check liveness", responses=error_docs())
async def live(request: Request) -> Envelope[Liveness]:
    """Return that the process responds, without checking its dependencies."""
    return envelope(request, Liveness())


@router.get(
    "/ready",
    name="health.ready",
    summary="Check readiness",
    responses={
        **error_docs(),
        503: {
            "model": Envelope[Readiness],
            "description": "The database is unavailable, or this process is about to stop.",
        },
    },
)
async def ready(
    request: Request, response: Response, operations: Operations, temporal: Temporal
) -> Envelope[Readiness]:
    """Check each dependency."""
    stopping = "This process is about to stop." if request.app.state.is_stopping else None
    problems = await asyncio.gather(
        _database_problem(operations), _redis_problem(operations), temporal.find_problem()
    )
    database, redis, workflows = map(_health, problems)
    status = Health.OK if redis is workflows is Health.OK else Health.DEGRADED
    if database is not Health.OK or stopping is not None:
        status, response.status_code = Health.UNAVAILABLE, 503
    return envelope(
        request,
        Readiness(
            status=status,
            database=database,
            redis=redis,
            temporal=workflows,
            problems=tuple(filter(None, (stopping, *problems))),
        ),
    )


def _health(problem: str | None) -> Health:
    return Health.OK if problem is None else Health.UNAVAILABLE


async def _database_problem(operations: OperationServices) -> str | None:
    try:
        await operations.database.ping()
    except DatabaseUnavailableError:
        return "The database can't be reached."
    return None


async def _redis_problem(operations: OperationServices) -> str | None:
    try:
        await operations.redis.ping()
    except (RedisError, OSError):
        return "Redis can't be reached."
    return None
