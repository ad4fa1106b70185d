"""The caller's subscription: its plan and usage."""

from typing import Annotated

from fastapi import Query, Request

from api.access import may
from api.dependencies import Subscriptions
from api.envelope import Envelope, envelope
from api.errors import value_or_raise
from api.openapi import SIGNED_IN, error_docs
from api.routing import GroupRouter
from schema.actors import Actor
from schema.permissions import Permission
from schema.subscriptions import Subscription, SubscriptionUsage

router = GroupRouter("/subscription", tag="subscription")

Reader = Annotated[Actor, may(Permission.ACCOUNT_READ)]

_ERRORS = error_docs(*SIGNED_IN)


@router.get("", name="subscription.get", summary="Get my subscription", responses=_ERRORS)
async def get_subscription(
    request: Request, actor: Reader, subscriptions: Subscriptions
) -> Envelope[Subscription]:
    """Return the caller's plan, its entitlements and the current period."""
    return envelope(request, await subscriptions.assignments.get(actor))


@router.get("/usage", name="subscription.usage", summary="Get my usage", responses=_ERRORS)
async def get_usage(
    request: Request,
    actor: Reader,
    subscriptions: Subscriptions,
    period: Annotated[
        str | None,
        Query(
            max_length=7,
            description="The month in which the period starts, e.g. `2026-01`; the current period "
            "by default.",
        ),
    ] = None,
) -> Envelope[SubscriptionUsage]:
    """Return the caller's usage in a period of the subscription, and what is left."""
    usage = value_or_raise(await subscriptions.usage.get(actor, month=period), "period")
    return envelope(request, usage)
