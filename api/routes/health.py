"""Owns the health of the process: alive, and which dependencies answer."""

import asyncio
from enum import StrEnum

from fastapi import Request, Response
from redis.exceptions import RedisError

from api.dependencies import Services
from api.envelope import Envelope, envelope
from api.group_router import GroupRouter
from api.service_groups import ApiServices
from schema.wire import WireModel
from services.database import DatabaseUnavailableError

router = GroupRouter("/health", tag="health")


class Health(StrEnum):
    """How something is."""

    OK = "ok"
    DEGRADED = "degraded"
    UNAVAILABLE = "unavailable"


class Liveness(WireModel):
    """The process answers."""

    status: Health = Health.OK


class Readiness(WireModel):
    """Whether requests can be served, and how each dependency is.

    Without Redis streams come from the database; without Temporal messages are taken and run
    later: both are `degraded`. Without the database nothing can be served.
    """

    status: Health
    database: Health
    redis: Health
    temporal: Health


@router.get("/live", summary="Is the process alive?")
async def live(request: Request) -> Envelope[Liveness]:
    """Answer without looking at anything else."""
    return envelope(request, Liveness())


@router.get(
    "/ready",
    summary="Can requests be served?",
    responses={503: {"model": Envelope[Readiness], "description": "The database is away."}},
)
async def ready(request: Request, response: Response, services: Services) -> Envelope[Readiness]:
    """Ask each dependency for a sign of life."""
    database, redis, temporal = await asyncio.gather(
        _database(services), _redis(services), _temporal(services)
    )
    status = Health.OK if redis is temporal is Health.OK else Health.DEGRADED
    if database is not Health.OK:
        status, response.status_code = Health.UNAVAILABLE, 503
    return envelope(
        request, Readiness(status=status, database=database, redis=redis, temporal=temporal)
    )


async def _database(services: ApiServices) -> Health:
    try:
        await services.operations.database.ping()
    except DatabaseUnavailableError:
        return Health.UNAVAILABLE
    return Health.OK


async def _redis(services: ApiServices) -> Health:
    try:
        await services.operations.redis.ping()
    except (RedisError, OSError):
        return Health.UNAVAILABLE
    return Health.OK


async def _temporal(services: ApiServices) -> Health:
    return Health.OK if await services.temporal.is_reachable() else Health.UNAVAILABLE
