"""Owns turns over HTTP: reading, following, stopping."""

from typing import Annotated, Any, Final

from fastapi import Request, Response

from api import turn_control
from api.answering import ANSWERS, answer_turn
from api.dependencies import Services, may
from api.documentation import OF_ONE, error_docs
from api.envelope import Envelope, envelope
from api.errors import invalid, value_or_raise
from api.group_router import GroupRouter
from api.parameters import IdempotencyKey, ResumeAfter, ToolCallIdPath, TurnIdPath
from api.rate_limits import limited
from api.sse import event_stream
from schema.actors import Actor
from schema.errors import ErrorCode
from schema.permissions import Permission
from schema.turns import (
    DecidedToolCall,
    DecideToolCallRequest,
    RegenerateTurnRequest,
    Turn,
)
from services.rate_limits.rules import Group

router = GroupRouter("/turns", tag="turns")

Reader = Annotated[Actor, may(Permission.CHATS_READ)]
Writer = Annotated[Actor, may(Permission.CHATS_WRITE)]

_OF_ANSWERING_ANEW: Final[dict[int | str, dict[str, Any]]] = {
    **ANSWERS,
    **error_docs(
        *OF_ONE,
        ErrorCode.TURN_IN_PROGRESS,
        ErrorCode.CONFLICT,
        ErrorCode.IDEMPOTENCY_CONFLICT,
        ErrorCode.MODEL_UNAVAILABLE,
    ),
}
_OF_ONE_TURN = error_docs(*OF_ONE)


@router.get("/{turn_id}", summary="Read a turn", responses=_OF_ONE_TURN)
async def get_turn(
    request: Request, turn_id: TurnIdPath, actor: Reader, services: Services
) -> Envelope[Turn]:
    """Return where a turn stands, what it used and what it cost."""
    return envelope(request, await turn_control.read_turn(services, actor, turn_id))


@router.get(
    "/{turn_id}/events",
    summary="Follow a turn",
    response_class=Response,
    responses={
        200: {
            "description": "The turn's events from its beginning, or behind the one given.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **_OF_ONE_TURN,
    },
)
async def follow_turn(
    request: Request, turn_id: TurnIdPath, actor: Reader, services: Services, after: ResumeAfter
) -> Response:
    """Stream a turn's events until `done`, while it runs and for ever after."""
    await turn_control.read_turn(services, actor, turn_id)
    if after is not None and not await services.turns.feed.knows(turn_id, after):
        raise invalid("header.Last-Event-ID", "This turn has no event with this id.")
    return event_stream(request, turn_id, services.turns.feed.stream(actor, turn_id, after=after))


@router.post("/{turn_id}/cancel", status_code=202, summary="Stop a turn", responses=_OF_ONE_TURN)
async def cancel_turn(
    request: Request, turn_id: TurnIdPath, actor: Writer, services: Services
) -> Envelope[Turn]:
    """Stop a turn; its `done` event says when it has. One that has ended stays as it is."""
    return envelope(request, await turn_control.cancel_turn(services, actor, turn_id))


@router.post(
    "/{turn_id}/regenerate",
    summary="Answer anew",
    responses=_OF_ANSWERING_ANEW,
    dependencies=[limited(Group.MESSAGES)],
)
async def regenerate_turn(
    request: Request,
    turn_id: TurnIdPath,
    body: RegenerateTurnRequest,
    actor: Writer,
    services: Services,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Answer the newest message of a chat again, in a new turn that takes the old one's place."""
    result = await services.turns.regeneration.regenerate(actor, turn_id, body, key=idempotency_key)
    accepted = value_or_raise(result, turn_control.regeneration_refused)
    return await answer_turn(request, services, actor, accepted, stream=body.stream)


@router.post(
    "/{turn_id}/approvals/{tool_call_id}",
    summary="Decide about a tool call",
    responses={**_OF_ONE_TURN, **error_docs(ErrorCode.CONFLICT)},
)
async def decide_tool_call(
    request: Request,
    turn_id: TurnIdPath,
    tool_call_id: ToolCallIdPath,
    body: DecideToolCallRequest,
    actor: Writer,
    services: Services,
) -> Envelope[DecidedToolCall]:
    """Let a tool call that waits for you be made, as it is or with another input, or not.

    The same decision twice is no mistake; one against another is a conflict.
    """
    result = await services.turns.approvals.decide(actor, turn_id, tool_call_id, body)
    decided = value_or_raise(result, turn_control.decision_refused)
    await services.temporal.signal_decision(decided)
    return envelope(request, decided)
