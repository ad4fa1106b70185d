"""Owns the usage of all users over HTTP."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import Query, Request

from api.dependencies import Services, WantedPage, may
from api.documentation import SIGNED_IN, error_docs
from api.envelope import ListMeta, request_id_of
from api.group_router import GroupRouter
from schema.actors import Actor
from schema.permissions import Permission
from schema.subscriptions import UsageFilter, UsageRow, UsageSums
from schema.wire import WireModel

router = GroupRouter("/admin/usage", tag="admin")


class UsageMeta(ListMeta):
    """What is said about a page of usage; the totals are those of all pages."""

    totals: UsageSums


class UsageEnvelope(WireModel):
    """A page of usage."""

    data: Sequence[UsageRow]
    meta: UsageMeta


@router.get(
    "",
    summary="Read the usage of all users",
    responses=error_docs(*SIGNED_IN),
)
async def get_usage(
    request: Request,
    actor: Annotated[Actor, may(Permission.ADMIN_READ)],
    services: Services,
    page: WantedPage,
    chosen: Annotated[UsageFilter, Query()],
) -> UsageEnvelope:
    """Add the ledger up by user, model or day: the last 30 days, unless told otherwise.

    A user, model or day without any call has no row.
    """
    report = await services.subscriptions.reports.report(actor, chosen, page)
    meta = UsageMeta(
        request_id=request_id_of(request),
        next_cursor=report.rows.next_cursor,
        totals=report.totals,
    )
    return UsageEnvelope(data=report.rows.items, meta=meta)
