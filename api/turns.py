"""Turns, as several routes need them: answering a request with one, reading and cancelling."""

import asyncio
from typing import Any, Final

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from api.envelope import Envelope, envelope
from api.errors import ApiError, value_or_raise
from api.openapi import EVENT_STREAM, OF_ONE, error_docs
from api.service_groups import ApiServices
from api.sse import event_stream
from schema.actors import Actor
from schema.chats import Message, MessageRole
from schema.errors import ErrorCode
from schema.events import TurnEvent
from schema.ids import TurnId
from schema.turns import FinishTurnInput, Turn, TurnReference, TurnStatus
from schema.wire import WireModel
from services.turns.acceptance import Accepted


class TurnAnswer(WireModel):
    """A turn with its messages; `assistantMessage` is null until there is an answer.

    The answer to a message that joined another turn is that turn's.
    """

    turn: Turn
    user_message: Message | None
    assistant_message: Message | None


ANSWER_DOCS: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "model": Envelope[TurnAnswer],
        "description": "The answer; with `stream: true`, the turn's events.",
        "content": EVENT_STREAM,
    },
    202: {
        "model": Envelope[TurnAnswer],
        "description": "The turn continues; follow it at `/turns/{id}/events`.",
    },
    **error_docs(
        *OF_ONE,
        ErrorCode.EMAIL_NOT_VERIFIED,
        ErrorCode.BUDGET_EXCEEDED,
        ErrorCode.TURN_IN_PROGRESS,
        ErrorCode.CONFLICT,
        ErrorCode.IDEMPOTENCY_CONFLICT,
        ErrorCode.MODEL_REJECTED,
        ErrorCode.MODEL_UNAVAILABLE,
    ),
}
"""The OpenAPI entries of a route that answers with a turn."""


async def read_turn(services: ApiServices, actor: Actor, turn_id: TurnId) -> Turn:
    """Return a turn. Errors: ApiError."""
    return value_or_raise(await services.turns.reading.get(actor, turn_id), "turn")


async def cancel_turn(services: ApiServices, actor: Actor, turn_id: TurnId) -> Turn:
    """Request a turn's cancellation, and return its current state. Errors: ApiError."""
    turn, reference = value_or_raise(
        await services.turns.cancellation.request(actor, turn_id), "turn"
    )
    if not turn.status.is_final:
        await _cancel(services, reference)
    return await read_turn(services, actor, turn_id)


async def _cancel(services: ApiServices, turn: TurnReference) -> None:
    """Cancel the turn's workflow; a turn that has none yet ends here."""
    if await services.temporal.cancel_turn(turn.turn_id):
        return
    ending = FinishTurnInput(turn=turn, status=TurnStatus.CANCELLED, only_if_queued=True)
    await services.turns.ending.finish(ending)


async def answer_turn(
    request: Request, services: ApiServices, actor: Actor, accepted: Accepted, *, stream: bool
) -> Response:
    """Start the turn's workflow; respond with its events, or with its result."""
    dispatched = services.temporal.dispatch_turn(accepted)
    await _publish_cancelled(services, actor, accepted)
    if stream:
        opening = None if accepted.replayed else _opening(accepted.turn)
        batches = services.turns.feed.stream(actor, accepted.turn.id, opening=opening)
        return event_stream(request, batches, turn_id=accepted.turn.id)
    if await dispatched:
        await _wait_for_end(services, actor, accepted.turn.id)
    return await _answer(request, services, actor, accepted.turn.id)


async def _publish_cancelled(services: ApiServices, actor: Actor, accepted: Accepted) -> None:
    """End the streams of queued turns that an interrupting message has dropped."""
    for turn_id in accepted.dropped:
        await services.turns.cancellation.publish_cancelled(actor, turn_id)


def _opening(turn: Turn) -> TurnEvent:
    return TurnEvent(
        turn_id=turn.id,
        chat_id=turn.chat_id,
        status=turn.status,
        user_message_id=turn.user_message_id,
        steers=turn.steers,
    )


async def _wait_for_end(services: ApiServices, actor: Actor, turn_id: TurnId) -> None:
    """Wait until the message is answered, up to the time limit of a request."""
    try:
        async with asyncio.timeout(services.turns.answer_wait_s):
            async for _ in services.turns.feed.stream(actor, turn_id):
                pass
            turn = await read_turn(services, actor, turn_id)
            if turn.answered_by != turn_id:
                async for _ in services.turns.feed.stream(actor, turn.answered_by):
                    pass
    except TimeoutError:
        return


async def _answer(
    request: Request, services: ApiServices, actor: Actor, turn_id: TurnId
) -> Response:
    turn = answering = await read_turn(services, actor, turn_id)
    messages = await services.turns.reading.list_messages(actor, turn.id)
    if turn.answered_by != turn_id:
        answering = await read_turn(services, actor, turn.answered_by)
        messages = await services.turns.reading.list_messages(actor, answering.id) + messages
    if answering.error is not None:
        raise ApiError(answering.error.code, answering.error.message, turn_id=answering.id)
    by_role = {message.role: message for message in messages}
    answer = TurnAnswer(
        turn=turn,
        user_message=by_role.get(MessageRole.USER),
        assistant_message=by_role.get(MessageRole.ASSISTANT),
    )
    return JSONResponse(
        envelope(request, answer).model_dump(mode="json", by_alias=True),
        status_code=200 if answering.status.is_final else 202,
        headers={"X-Turn-Id": str(turn.id)},
    )
