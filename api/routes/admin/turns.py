"""Turns of all users, as administrators see them."""

from typing import Annotated

from fastapi import Query, Request

from api.access import may
from api.dependencies import Services, Turns
from api.envelope import Envelope, ListEnvelope, envelope, list_envelope
from api.errors import value_or_raise
from api.openapi import OF_ONE, SIGNED_IN, error_docs
from api.parameters import IdempotencyKey, RequestedPage, TurnIdPath
from api.routing import GroupRouter
from api.service_groups import TurnServices
from api.turns import cancel_turn
from schema.actors import Actor, acting_user
from schema.audit import AuditAction
from schema.errors import ErrorCode
from schema.ids import TurnId, UserId
from schema.permissions import Permission
from schema.turn_inspection import InspectedTurn, OwnedTurn, TurnFilter, TurnSort
from schema.turns import RegenerateTurnRequest, Turn

router = GroupRouter("/admin/turns", tag="admin")

Reader = Annotated[Actor, may(Permission.ADMIN_READ)]
Writer = Annotated[Actor, may(Permission.ADMIN_WRITE)]

_OF_RERUN = error_docs(
    *OF_ONE,
    ErrorCode.BUDGET_EXCEEDED,
    ErrorCode.TURN_IN_PROGRESS,
    ErrorCode.CONFLICT,
    ErrorCode.IDEMPOTENCY_CONFLICT,
)


@router.get(
    "",
    name="admin.turns.list",
    summary="List all users' turns",
    responses=error_docs(*SIGNED_IN),
)
async def list_turns(
    request: Request,
    actor: Reader,
    turns: Turns,
    page: RequestedPage,
    chosen: Annotated[TurnFilter, Query()],
    sort: TurnSort = TurnSort.CREATED_LAST,
) -> ListEnvelope[OwnedTurn]:
    """Return turns without their content, newest first by default."""
    found = await turns.inspection.list_turns(actor, chosen, page, sort=sort)
    return list_envelope(request, found)


@router.get(
    "/{turn_id}",
    name="admin.turns.get",
    summary="Inspect a turn",
    responses=error_docs(*OF_ONE),
)
async def inspect_turn(
    request: Request, turn_id: TurnIdPath, actor: Reader, turns: Turns
) -> Envelope[InspectedTurn]:
    """Return a turn with its messages, prompt, steps, tool calls and charges. This is audited."""
    turn = value_or_raise(await turns.inspection.inspect(actor, turn_id), "turn")
    return envelope(request, turn)


@router.post(
    "/{turn_id}/cancel",
    name="admin.turns.cancel",
    status_code=202,
    summary="Cancel a user's turn",
    responses=error_docs(*OF_ONE),
)
async def cancel_any_turn(
    request: Request, turn_id: TurnIdPath, actor: Writer, services: Services
) -> Envelope[Turn]:
    """Cancel a user's turn; one that has ended stays unchanged."""
    owner = await _owner(services.turns, actor, turn_id)
    await services.turns.inspection.note(actor, AuditAction.TURN_CANCELLED, turn_id, owner=owner)
    return envelope(request, await cancel_turn(services, acting_user(owner), turn_id))


@router.post(
    "/{turn_id}/rerun",
    name="admin.turns.rerun",
    status_code=202,
    summary="Rerun a user's turn",
    responses=_OF_RERUN,
)
async def rerun_turn(
    request: Request,
    turn_id: TurnIdPath,
    actor: Writer,
    services: Services,
    idempotency_key: IdempotencyKey = None,
) -> Envelope[Turn]:
    """Answer a user's latest message again, on their behalf; returns the new turn."""
    owner = await _owner(services.turns, actor, turn_id)
    result = await services.turns.regeneration.regenerate(
        acting_user(owner), turn_id, RegenerateTurnRequest(), key=idempotency_key
    )
    accepted = value_or_raise(result, "turn")
    await services.turns.inspection.note(actor, AuditAction.TURN_RERUN, turn_id, owner=owner)
    services.temporal.dispatch_turn(accepted)
    return envelope(request, accepted.turn)


async def _owner(turns: TurnServices, actor: Actor, turn_id: TurnId) -> UserId:
    return value_or_raise(await turns.inspection.owner_of(actor, turn_id), "turn")
