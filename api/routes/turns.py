"""Owns turns over HTTP: reading, following, stopping."""

from typing import Annotated

from fastapi import APIRouter, Request, Response

from api.dependencies import ApiServices, Services, may
from api.envelope import Envelope, envelope
from api.errors import error_docs, invalid, refused
from api.parameters import ResumeAfter, TurnIdPath
from api.sse import event_stream
from schema.actors import Actor
from schema.errors import ErrorCode
from schema.ids import TurnId
from schema.permissions import Permission
from schema.result import Err
from schema.turns import FinishTurnInput, Turn, TurnReference, TurnStatus

router = APIRouter(prefix="/turns", tags=["turns"])

Reader = Annotated[Actor, may(Permission.CHATS_READ)]
Writer = Annotated[Actor, may(Permission.CHATS_WRITE)]

_OF_ONE_TURN = error_docs(ErrorCode.UNAUTHENTICATED, ErrorCode.FORBIDDEN, ErrorCode.NOT_FOUND)


@router.get("/{turn_id}", summary="Read a turn", responses=_OF_ONE_TURN)
async def get_turn(
    request: Request, turn_id: TurnIdPath, actor: Reader, services: Services
) -> Envelope[Turn]:
    """Return where a turn stands, what it used and what it cost."""
    return envelope(request, await _turn(services, actor, turn_id))


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
    turn_id: TurnIdPath, actor: Reader, services: Services, after: ResumeAfter
) -> Response:
    """Stream a turn's events until `done`, while it runs and for ever after."""
    await _turn(services, actor, turn_id)
    if after is not None and not await services.feed.knows(turn_id, after):
        raise invalid("header.Last-Event-ID", "This turn has no event with this id.")
    return event_stream(turn_id, services.feed.stream(actor, turn_id, after=after))


@router.post("/{turn_id}/cancel", status_code=202, summary="Stop a turn", responses=_OF_ONE_TURN)
async def cancel_turn(
    request: Request, turn_id: TurnIdPath, actor: Writer, services: Services
) -> Envelope[Turn]:
    """Stop a turn; its `done` event says when it has. One that has ended stays as it is."""
    result = await services.cancellation.request(actor, turn_id)
    if isinstance(result, Err):
        raise refused(result.error, "turn")
    turn, reference = result.value
    if not turn.status.is_final:
        await _stop(services, reference)
    return envelope(request, await _turn(services, actor, turn_id))


async def _stop(services: ApiServices, turn: TurnReference) -> None:
    """Stop the turn's workflow; a turn that has none yet is ended here."""
    if await services.starter.cancel(turn.turn_id):
        return
    ending = FinishTurnInput(turn=turn, status=TurnStatus.CANCELLED, only_if_queued=True)
    await services.ending.finish(ending)


async def _turn(services: ApiServices, actor: Actor, turn_id: TurnId) -> Turn:
    result = await services.chats.turn(actor, turn_id)
    if isinstance(result, Err):
        raise refused(result.error, "turn")
    return result.value
