"""Owns alerts over HTTP."""

from typing import Annotated

from fastapi import Query, Request

from api.dependencies import Services, WantedPage, may
from api.documentation import SIGNED_IN, error_docs
from api.envelope import ListEnvelope, list_envelope
from api.group_router import GroupRouter
from schema.actors import Actor
from schema.alerts import Alert, AlertFilter
from schema.permissions import Permission

router = GroupRouter("/admin/alerts", tag="admin")


@router.get(
    "",
    summary="List alerts",
    responses=error_docs(*SIGNED_IN),
)
async def list_alerts(
    request: Request,
    actor: Annotated[Actor, may(Permission.ADMIN_READ)],
    services: Services,
    page: WantedPage,
    chosen: Annotated[AlertFilter, Query()],
) -> ListEnvelope[Alert]:
    """Return what administrators should know of, newest first."""
    return list_envelope(request, await services.operations.alerts.list_alerts(actor, chosen, page))
