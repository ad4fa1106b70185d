"""Turns: reading, following, cancelling and regenerating them, and approving their tool calls."""

from typing import Annotated

from fastapi import Query, Request, Response

from api.access import VERIFIED_EMAIL, CurrentCaller, OpenStream, limited, may
from api.dependencies import Services
from api.envelope import Envelope, ListEnvelope, envelope, list_envelope
from api.error_messages import NO_SUCH_EVENT
from api.errors import invalid, value_or_raise
from api.openapi import EVENT_STREAM, OF_ONE, SIGNED_IN, error_docs
from api.parameters import (
    IdempotencyKey,
    RequestedPage,
    ResumeAfter,
    ToolCallIdPath,
    TurnIdPath,
)
from api.routing import GroupRouter
from api.sse import event_stream
from api.turns import ANSWER_DOCS, answer_turn, cancel_turn, read_turn
from schema.actors import Actor
from schema.errors import ErrorCode
from schema.permissions import Permission
from schema.turn_inspection import ListedTurn, OwnTurnFilter, TurnSort
from schema.turns import (
    DecidedToolCall,
    DecideToolCallRequest,
    RegenerateTurnRequest,
    ToolCall,
    Turn,
)
from services.rate_limits.rules import Group

router = GroupRouter("/turns", tag="turns")

Reader = Annotated[Actor, may(Permission.CHATS_READ)]
Writer = Annotated[Actor, may(Permission.CHATS_WRITE)]

_OF_ONE_TURN = error_docs(*OF_ONE)


@router.get("", name="turns.list", summary="List turns", responses=error_docs(*SIGNED_IN))
async def list_turns(
    request: Request,
    actor: Reader,
    services: Services,
    page: RequestedPage,
    chosen: Annotated[OwnTurnFilter, Query()],
    sort: TurnSort = TurnSort.CREATED_LAST,
) -> ListEnvelope[ListedTurn]:
    """Return the caller's turns in all chats, newest first by default.

    What runs: `status=running`; what waits for the caller's approval: `status=awaiting_approval`.
    """
    found = await services.turns.reading.list_turns(actor, chosen, page, sort=sort)
    return list_envelope(request, found)


@router.get("/{turn_id}", name="turns.get", summary="Get a turn", responses=_OF_ONE_TURN)
async def get_turn(
    request: Request, turn_id: TurnIdPath, actor: Reader, services: Services
) -> Envelope[Turn]:
    """Return a turn's status, usage and cost."""
    return envelope(request, await read_turn(services, actor, turn_id))


@router.get(
    "/{turn_id}/events",
    name="turns.events",
    summary="Stream a turn's events",
    response_class=Response,
    responses={
        200: {
            "description": "The turn's events from the start, or after the given one.",
            "content": EVENT_STREAM,
        },
        **_OF_ONE_TURN,
    },
    dependencies=[limited(Group.STREAMS)],
)
async def follow_turn(
    request: Request,
    turn_id: TurnIdPath,
    actor: Reader,
    services: Services,
    after: ResumeAfter,
    slot: OpenStream,
) -> Response:
    """Stream a turn's events until `done`, while it runs and afterwards."""
    feed = services.turns.feed
    value_or_raise(await feed.find(actor, turn_id), "turn")
    if after is not None and not await feed.knows(turn_id, after):
        raise invalid("header.Last-Event-ID", NO_SUCH_EVENT)
    await slot.take()
    return event_stream(request, feed.stream(actor, turn_id, after=after), turn_id=turn_id)


@router.get(
    "/{turn_id}/tool-calls/{tool_call_id}",
    name="toolCalls.get",
    summary="Get a tool call",
    responses=_OF_ONE_TURN,
)
async def get_tool_call(
    request: Request,
    turn_id: TurnIdPath,
    tool_call_id: ToolCallIdPath,
    actor: Reader,
    services: Services,
) -> Envelope[ToolCall]:
    """Return a tool call with its whole input, which events leave out if it is long."""
    found = await services.turns.reading.get_tool_call(actor, turn_id, tool_call_id)
    return envelope(request, value_or_raise(found, "tool call"))


@router.post(
    "/{turn_id}/cancel",
    name="turns.cancel",
    status_code=202,
    summary="Cancel a turn",
    responses=_OF_ONE_TURN,
)
async def request_cancellation(
    request: Request, turn_id: TurnIdPath, actor: Writer, services: Services
) -> Envelope[Turn]:
    """Cancel a turn; its `done` event follows. A turn that has ended stays unchanged."""
    return envelope(request, await cancel_turn(services, actor, turn_id))


@router.post(
    "/{turn_id}/regenerate",
    name="turns.regenerate",
    summary="Regenerate an answer",
    responses=ANSWER_DOCS,
    dependencies=[limited(Group.MESSAGES), VERIFIED_EMAIL],
)
async def regenerate_turn(
    request: Request,
    turn_id: TurnIdPath,
    body: RegenerateTurnRequest,
    actor: Writer,
    caller: CurrentCaller,
    services: Services,
    slot: OpenStream,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Answer a turn's message again, in a new turn; its answer is a sibling of the earlier one."""
    if body.stream:
        await slot.take()
    result = await services.turns.regeneration.regenerate(
        actor, turn_id, body, key=idempotency_key, api_key_id=caller.api_key_id
    )
    accepted = value_or_raise(result, "turn")
    return await answer_turn(request, services, actor, accepted, stream=body.stream)


@router.post(
    "/{turn_id}/approvals/{tool_call_id}",
    name="toolCalls.decide",
    summary="Approve or deny a tool call",
    responses={**_OF_ONE_TURN, **error_docs(*OF_ONE, ErrorCode.CONFLICT)},
)
async def decide_tool_call(
    request: Request,
    turn_id: TurnIdPath,
    tool_call_id: ToolCallIdPath,
    body: DecideToolCallRequest,
    actor: Writer,
    services: Services,
) -> Envelope[DecidedToolCall]:
    """Approve a tool call that awaits approval, as it is or with another input, or deny it.

    Repeating a decision is harmless; a different decision is a conflict.
    """
    result = await services.turns.approvals.decide(actor, turn_id, tool_call_id, body)
    decided = value_or_raise(result, "tool call")
    await services.temporal.signal_decision(decided)
    return envelope(request, decided)
