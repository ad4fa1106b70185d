"""Answers byte by byte: what a provider sends that does not keep to the Messages API."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ConfigDict
from starlette.types import Receive, Scope, Send

from tests.fakes.scripted_model.connection import AnswerEndedError, Connection
from tests.fakes.scripted_model.request_log import RequestRecord
from workers.demo_model.answers import Usage
from workers.demo_model.wire import sse_event

_EVENT_STREAM: Final = {"content-type": "text/event-stream; charset=utf-8"}


class RawAnswer(BaseModel):
    """The response to the next `repeat` requests whose newest user text contains `match`.

    `chunks` are written each at once, `pause_s` after the one before. Without `ends` the connection
    then stays open in silence until the client leaves.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64"
    )

    match: str
    chunks: tuple[bytes, ...]
    status: int = 200
    headers: dict[str, str] = _EVENT_STREAM
    repeat: int = 1
    pause_s: float = 0.0
    ends: bool = True


def whole(*events: dict[str, Any], **of_end: Any) -> tuple[bytes, ...]:  # noqa: ANN401 -- JSON
    """Return a stream in one chunk that begins and ends as the API wants, with `events` between."""
    return (b"".join(map(sse_event, (message_start(), *events, *message_end(**of_end)))),)


def message_start(*, input_tokens: int = 10) -> dict[str, Any]:
    """Return the event that begins an answer."""
    message: dict[str, Any] = {
        "id": "msg_raw",
        "type": "message",
        "role": "assistant",
        "model": "raw",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": input_tokens, "output_tokens": 1},
    }
    return {"type": "message_start", "message": message}


def message_end(
    *, stop_reason: str = "end_turn", output_tokens: int = 5
) -> tuple[dict[str, Any], ...]:
    """Return the events that end an answer."""
    return (
        {
            "type": "message_delta",
            "delta": {"stop_reason": stop_reason, "stop_sequence": None},
            "usage": {"output_tokens": output_tokens},
        },
        {"type": "message_stop"},
    )


def text(words: str, *, index: int = 0) -> tuple[dict[str, Any], ...]:
    """Return the events of a text block."""
    return (
        _start(index, {"type": "text", "text": ""}),
        _delta(index, {"type": "text_delta", "text": words}),
        {"type": "content_block_stop", "index": index},
    )


def tool_use(
    name: str, written: str, *, index: int = 0, call_id: str = "toolu_raw"
) -> tuple[dict[str, Any], ...]:
    """Return the events of a tool call whose input is written exactly like this."""
    return (
        _start(index, {"type": "tool_use", "id": call_id, "name": name, "input": {}}),
        _delta(index, {"type": "input_json_delta", "partial_json": written}),
        {"type": "content_block_stop", "index": index},
    )


def _start(index: int, block: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def _delta(index: int, delta: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


@dataclass(frozen=True, slots=True)
class RawPlayback:
    """A raw answer about to be written; as an ASGI application it is the response."""

    answer: RawAnswer
    record: RequestRecord

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write the answer until its end, or until the client leaves."""
        connection = Connection(scope, receive, send, record=self.record, join_events=False)
        async with connection:
            try:
                await self._play(connection)
            except AnswerEndedError:
                self.record.end()

    async def _play(self, connection: Connection) -> None:
        await connection.start(self.answer.status, dict(self.answer.headers))
        self.record.start(self.answer.status, Usage())
        async for chunk in _paced(self.answer.chunks, connection, self.answer.pause_s):
            connection.write(chunk)
            await connection.flush()
        if not self.answer.ends:
            await connection.until_gone()
        await connection.finish()
        self.record.finish()


async def _paced(
    chunks: Iterable[bytes], connection: Connection, pause_s: float
) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
        await connection.wait(pause_s)
