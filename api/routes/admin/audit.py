"""Owns the audit log over HTTP."""

from typing import Annotated

from fastapi import Query, Request

from api.dependencies import Services, WantedPage, may
from api.documentation import SIGNED_IN, error_docs
from api.envelope import ListEnvelope, list_envelope
from api.group_router import GroupRouter
from schema.actors import Actor
from schema.audit import AuditEntry, AuditFilter
from schema.permissions import Permission

router = GroupRouter("/admin/audit", tag="admin")


@router.get(
    "",
    summary="Search the audit log",
    responses=error_docs(*SIGNED_IN),
)
async def list_entries(
    request: Request,
    actor: Annotated[Actor, may(Permission.ADMIN_READ)],
    services: Services,
    page: WantedPage,
    chosen: Annotated[AuditFilter, Query()],
) -> ListEnvelope[AuditEntry]:
    """Return who did what to which thing, newest first."""
    return list_envelope(request, await services.operations.audit.list_entries(actor, chosen, page))
