"""Owns turns over HTTP as administrators see them: of all users, with all that happened."""

from functools import partial
from typing import Annotated

from fastapi import Query, Request

from api import turn_control
from api.dependencies import Services, WantedPage, may
from api.documentation import OF_ONE, SIGNED_IN, error_docs
from api.envelope import Envelope, ListEnvelope, envelope, list_envelope
from api.errors import refused, value_or_raise
from api.group_router import GroupRouter
from api.parameters import IdempotencyKey, TurnIdPath
from api.service_groups import ApiServices
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

_refused = partial(refused, noun="turn")

_OF_RERUN = error_docs(
    *OF_ONE, ErrorCode.TURN_IN_PROGRESS, ErrorCode.CONFLICT, ErrorCode.IDEMPOTENCY_CONFLICT
)


@router.get("", summary="List turns of all users", responses=error_docs(*SIGNED_IN))
async def list_turns(
    request: Request,
    actor: Reader,
    services: Services,
    page: WantedPage,
    chosen: Annotated[TurnFilter, Query()],
    sort: TurnSort = TurnSort.CREATED_LAST,
) -> ListEnvelope[OwnedTurn]:
    """Return turns without their content, newest first unless sorted otherwise."""
    found = await services.turns.inspection.list_turns(actor, chosen, page, sort=sort)
    return list_envelope(request, found)


@router.get("/{turn_id}", summary="Inspect a turn", responses=error_docs(*OF_ONE))
async def inspect_turn(
    request: Request, turn_id: TurnIdPath, actor: Reader, services: Services
) -> Envelope[InspectedTurn]:
    """Return a turn with its messages, prompt, steps, tool calls and charges; this is audited."""
    turn = value_or_raise(await services.turns.inspection.inspect(actor, turn_id), _refused)
    return envelope(request, turn)


@router.post(
    "/{turn_id}/cancel", status_code=202, summary="Stop a turn", responses=error_docs(*OF_ONE)
)
async def cancel_turn(
    request: Request, turn_id: TurnIdPath, actor: Writer, services: Services
) -> Envelope[Turn]:
    """Stop somebody's turn; one that has ended stays as it is."""
    owner = await _owner(services, actor, turn_id)
    await services.turns.inspection.note(actor, AuditAction.TURN_CANCELLED, turn_id, owner=owner)
    return envelope(request, await turn_control.cancel_turn(services, acting_user(owner), turn_id))


@router.post("/{turn_id}/rerun", status_code=202, summary="Run a turn again", responses=_OF_RERUN)
async def rerun_turn(
    request: Request,
    turn_id: TurnIdPath,
    actor: Writer,
    services: Services,
    idempotency_key: IdempotencyKey = None,
) -> Envelope[Turn]:
    """Answer somebody's newest message again, in their name; the new turn is the answer."""
    owner = await _owner(services, actor, turn_id)
    result = await services.turns.regeneration.regenerate(
        acting_user(owner), turn_id, RegenerateTurnRequest(), key=idempotency_key
    )
    accepted = value_or_raise(result, turn_control.regeneration_refused)
    await services.turns.inspection.note(actor, AuditAction.TURN_RERUN, turn_id, owner=owner)
    services.temporal.dispatch_turn(accepted)
    return envelope(request, accepted.turn)


async def _owner(services: ApiServices, actor: Actor, turn_id: TurnId) -> UserId:
    return value_or_raise(await services.turns.inspection.owner_of(actor, turn_id), _refused)
