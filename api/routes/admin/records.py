"""What administrators look up: alerts, the audit log, and feedback on answers."""

from typing import Annotated

from fastapi import Query, Request

from api.access import may
from api.dependencies import FeedbackOnAnswers, Operations
from api.envelope import ListEnvelope, list_envelope
from api.openapi import SIGNED_IN, error_docs
from api.parameters import RequestedPage
from api.routing import GroupRouter
from schema.actors import Actor
from schema.alerts import Alert, AlertFilter
from schema.audit import AuditEntry, AuditFilter
from schema.feedback import FeedbackFilter, GivenFeedback
from schema.permissions import Permission

router = GroupRouter("/admin", tag="admin")

Reader = Annotated[Actor, may(Permission.ADMIN_READ)]


@router.get(
    "/alerts", name="admin.alerts.list", summary="List alerts", responses=error_docs(*SIGNED_IN)
)
async def list_alerts(
    request: Request,
    actor: Reader,
    operations: Operations,
    page: RequestedPage,
    chosen: Annotated[AlertFilter, Query()],
) -> ListEnvelope[Alert]:
    """Return alerts, newest first."""
    return list_envelope(request, await operations.alerts.list_alerts(actor, chosen, page))


@router.get(
    "/audit",
    name="admin.audit.list",
    summary="Search the audit log",
    responses=error_docs(*SIGNED_IN),
)
async def list_entries(
    request: Request,
    actor: Reader,
    operations: Operations,
    page: RequestedPage,
    chosen: Annotated[AuditFilter, Query()],
) -> ListEnvelope[AuditEntry]:
    """Return audit log entries, newest first: who did what to which resource."""
    return list_envelope(request, await operations.audit.list_entries(actor, chosen, page))


@router.get(
    "/feedback",
    name="admin.feedback.list",
    summary="List feedback on answers",
    responses=error_docs(*SIGNED_IN),
)
async def list_feedback(
    request: Request,
    actor: Reader,
    feedback: FeedbackOnAnswers,
    page: RequestedPage,
    chosen: Annotated[FeedbackFilter, Query()],
) -> ListEnvelope[GivenFeedback]:
    """Return the feedback of all users, newest first. This is audited."""
    return list_envelope(request, await feedback.list_all(actor, chosen, page))
