"""Owns answering a request that began a turn: at once as a stream, or once the turn has ended."""

import asyncio
from typing import Any, Final

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from api.envelope import Envelope, envelope
from api.errors import ApiError
from api.service_groups import ApiServices
from api.sse import event_stream
from api.turn_control import read_turn
from schema.actors import Actor
from schema.chats import Message, MessageRole
from schema.events import TurnEvent
from schema.ids import TurnId
from schema.turns import Turn, TurnReference
from schema.wire import WireModel
from services.turns.acceptance import Accepted


class Answer(WireModel):
    """A turn with its messages; no answer yet, or none at all, where it is null."""

    turn: Turn
    user_message: Message | None
    assistant_message: Message | None


ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "model": Envelope[Answer],
        "description": "The answer; or, with `stream: true`, the turn's events.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    202: {
        "model": Envelope[Answer],
        "description": "The turn is accepted and goes on; follow it at `/turns/{id}/events`.",
    },
}
"""The OpenAPI entries of a turn's answer."""


async def answer_turn(
    request: Request, services: ApiServices, actor: Actor, accepted: Accepted, *, stream: bool
) -> Response:
    """Start the turn's workflow and answer with its events, or with what came of it."""
    dispatched = services.temporal.dispatch_turn(accepted)
    await _publish_cancelled(services, actor, accepted)
    if stream:
        opening = None if accepted.replayed else _opening(accepted.turn)
        batches = services.turns.feed.stream(actor, accepted.turn.id, opening=opening)
        return event_stream(request, accepted.turn.id, batches)
    if await dispatched:
        await _wait_for_end(services, actor, accepted.turn.id)
    return await _answer(request, services, actor, accepted.reference)


async def _publish_cancelled(services: ApiServices, actor: Actor, accepted: Accepted) -> None:
    """End the streams of turns that an interrupting message has pushed out of the queue."""
    for turn_id in accepted.dropped:
        await services.turns.ending.publish_cancelled(actor, turn_id)


def _opening(turn: Turn) -> TurnEvent:
    return TurnEvent(
        turn_id=turn.id,
        chat_id=turn.chat_id,
        status=turn.status,
        user_message_id=turn.user_message_id,
    )


async def _wait_for_end(services: ApiServices, actor: Actor, turn_id: TurnId) -> None:
    """Wait until the turn has ended, or for as long as a client is kept waiting."""
    try:
        async with asyncio.timeout(services.turns.answer_wait_s):
            async for _ in services.turns.feed.stream(actor, turn_id):
                pass
    except TimeoutError:
        return


async def _answer(
    request: Request, services: ApiServices, actor: Actor, reference: TurnReference
) -> Response:
    turn = await read_turn(services, actor, reference.turn_id)
    if turn.error is not None:
        raise ApiError(turn.error.code, turn.error.message)
    messages = await services.turns.reading.list_messages(actor, turn.id)
    by_role = {message.role: message for message in messages}
    answer = Answer(
        turn=turn,
        user_message=by_role.get(MessageRole.USER),
        assistant_message=by_role.get(MessageRole.ASSISTANT),
    )
    return JSONResponse(
        envelope(request, answer).model_dump(mode="json", by_alias=True),
        status_code=200 if turn.status.is_final else 202,
        headers={"X-Turn-Id": str(turn.id)},
    )
