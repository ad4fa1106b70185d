"""Owns reading, stopping and replacing turns, for their owners and for administrators."""

from functools import partial
from typing import assert_never

from api.errors import ApiError, invalid, refused, value_or_raise
from api.service_groups import ApiServices
from schema.actors import Actor
from schema.errors import ErrorCode
from schema.ids import TurnId
from schema.turns import FinishTurnInput, Turn, TurnReference, TurnStatus
from services.resources import Conflict, InvalidField, Unreachable
from services.turns.approvals import ApprovalRefusal
from services.turns.regeneration import RegenerationRefusal

_refused = partial(refused, noun="turn")


async def read_turn(services: ApiServices, actor: Actor, turn_id: TurnId) -> Turn:
    """Return a turn. Errors: ApiError."""
    return value_or_raise(await services.turns.reading.get(actor, turn_id), _refused)


async def cancel_turn(services: ApiServices, actor: Actor, turn_id: TurnId) -> Turn:
    """Ask a turn to stop, and return where it stands then. Errors: ApiError."""
    turn, reference = value_or_raise(
        await services.turns.cancellation.request(actor, turn_id), _refused
    )
    if not turn.status.is_final:
        await _stop(services, reference)
    return await read_turn(services, actor, turn_id)


async def _stop(services: ApiServices, turn: TurnReference) -> None:
    """Stop the turn's workflow; a turn that has none yet is ended here."""
    if await services.temporal.cancel_turn(turn.turn_id):
        return
    ending = FinishTurnInput(turn=turn, status=TurnStatus.CANCELLED, only_if_queued=True)
    await services.turns.ending.finish(ending)


def regeneration_refused(refusal: RegenerationRefusal | Conflict | Unreachable) -> ApiError:
    """Return the error for a turn that can't be answered anew."""
    match refusal:
        case Conflict() | Unreachable():
            return refused(refusal, "turn")
        case RegenerationRefusal.UNKNOWN_MODEL:
            return invalid("body.model", "There is no such model here.")
        case RegenerationRefusal.MODEL_NOT_ALLOWED:
            return ApiError(ErrorCode.FORBIDDEN, "Your plan does not allow this model.")
        case RegenerationRefusal.BUSY:
            return ApiError(
                ErrorCode.TURN_IN_PROGRESS,
                "A turn is under way in this chat. Wait for it, or stop it.",
            )
        case RegenerationRefusal.NOT_NEWEST:
            return ApiError(
                ErrorCode.CONFLICT, "Only the newest answer of a chat can be given anew."
            )
        case _:
            assert_never(refusal)


def decision_refused(refusal: Unreachable | ApprovalRefusal | InvalidField) -> ApiError:
    """Return the error for a tool call that can't be decided about."""
    match refusal:
        case Unreachable():
            return refused(refusal, "tool call")
        case InvalidField(path=path, message=message):
            return invalid(path, message)
        case ApprovalRefusal.NOT_AWAITED:
            return ApiError(ErrorCode.CONFLICT, "This tool call does not wait for a decision.")
        case ApprovalRefusal.DECIDED:
            return ApiError(ErrorCode.CONFLICT, "It was decided otherwise about this tool call.")
        case _:
            assert_never(refusal)
