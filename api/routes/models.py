"""The models that callers may choose."""

from typing import Annotated

from fastapi import Request

from api.access import may
from api.dependencies import Subscriptions
from api.envelope import ListEnvelope, list_envelope
from api.openapi import SIGNED_IN, error_docs
from api.routing import GroupRouter
from schema.actors import Actor
from schema.models import OfferedModel
from schema.pages import Page
from schema.permissions import Permission

router = GroupRouter("/models", tag="models")


@router.get("", name="models.list", summary="List models", responses=error_docs(*SIGNED_IN))
async def list_models(
    request: Request,
    actor: Annotated[Actor, may(Permission.CHATS_READ)],
    subscriptions: Subscriptions,
) -> ListEnvelope[OfferedModel]:
    """Return the models that the caller's plan allows: they all are on one page."""
    return list_envelope(request, Page(await subscriptions.models.list_models(actor), None))
