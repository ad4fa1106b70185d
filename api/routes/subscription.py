"""Owns the caller's subscription over HTTP: their plan, and what they have used of it."""

from typing import Annotated

from fastapi import Query, Request

from api.dependencies import Services, may
from api.documentation import SIGNED_IN, error_docs
from api.envelope import Envelope, envelope
from api.errors import ApiError, invalid, value_or_raise
from api.group_router import GroupRouter
from schema.actors import Actor
from schema.permissions import Permission
from schema.subscriptions import Subscription, SubscriptionUsage
from services.resources import InvalidField

router = GroupRouter("/subscription", tag="subscription")

Reader = Annotated[Actor, may(Permission.ACCOUNT_READ)]

_ERRORS = error_docs(*SIGNED_IN)


@router.get("", summary="Read one's subscription", responses=_ERRORS)
async def get_subscription(
    request: Request, actor: Reader, services: Services
) -> Envelope[Subscription]:
    """Return the caller's plan, what it allows, and the period that is running."""
    return envelope(request, await services.subscriptions.assignments.get(actor))


@router.get("/usage", summary="Read one's usage", responses=_ERRORS)
async def get_usage(
    request: Request,
    actor: Reader,
    services: Services,
    period: Annotated[
        str | None,
        Query(
            max_length=7,
            description="The month in which the period begins, as `2026-01`; the running period "
            "if it is left out.",
        ),
    ] = None,
) -> Envelope[SubscriptionUsage]:
    """Return what the caller has used in a period of their subscription, and what is left."""
    usage = value_or_raise(await services.subscriptions.usage.get(actor, month=period), _refused)
    return envelope(request, usage)


def _refused(refusal: InvalidField) -> ApiError:
    return invalid(refusal.path, refusal.message)
