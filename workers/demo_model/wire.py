"""The bytes of the Messages API: events of a stream, answers in one piece, refusals.

Source: https://platform.claude.com/docs/en/build-with-claude/streaming
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from workers.demo_model.answers import Answer, Block, Usage
from workers.demo_model.prompt import JsonObject

_DELTAS = {
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "tool_use": ("input_json_delta", "partial_json"),
}
_SIGNATURE = "ZGVtbw=="
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error, as the Messages API reports it.

    Source: https://platform.claude.com/docs/en/api/errors
    """

    status: int
    message: str
    retry_after_s: float | None = None

    def as_json(self, request_id: str) -> dict[str, Any]:
        """Return the body of the response, which is also the data of an `error` event."""
        return {
            "type": "error",
            "error": {"type": self.error_type, "message": self.message},
            "request_id": request_id,
        }

    @property
    def error_type(self) -> str:
        """The name that the status has in an error's body."""
        return _ERROR_TYPES.get(
            self.status, "invalid_request_error" if self.status < 500 else "api_error"
        )

    @property
    def headers(self) -> dict[str, str]:
        """The headers that go with the refusal."""
        if self.retry_after_s is None:
            return {}
        return {"retry-after": _number(self.retry_after_s)}


def _number(seconds: float) -> str:
    """Write whole seconds without a fraction, as the header's standard asks."""
    whole = math.trunc(seconds)
    return str(whole if whole == seconds else seconds)


def encode_json(value: object) -> bytes:
    """Return compact JSON; what UTF-8 cannot hold becomes a question mark."""
    return _ENCODER.encode(value).encode(errors="replace")


def sse_event(data: JsonObject) -> bytes:
    """Return one server-sent event, named after the type of its data."""
    return b"event: %s\ndata: %s\n\n" % (data["type"].encode(), encode_json(data))


MESSAGE_STOP = sse_event({"type": "message_stop"})


def message_start(answer: Answer, usage: Usage) -> bytes:
    """Return the event that opens a stream; `usage` is what is billed from here on."""
    opening = _message(answer, content=[], stop_reason=None, usage=usage)
    return sse_event({"type": "message_start", "message": opening})


def content_block_start(index: int, block: Block) -> bytes:
    """Return the event that opens a block, still empty."""
    return sse_event(
        {
            "type": "content_block_start",
            "index": index,
            "content_block": _content_block(block, text="", tool_input={}, signature=""),
        }
    )


def content_block_deltas(index: int, block: Block) -> Iterator[tuple[int, bytes]]:
    """Yield the deltas of a block, each with the characters that it is billed for."""
    kind, field = _DELTAS[block.kind]
    for piece in block.pieces:
        yield len(piece), _delta(index, {"type": kind, field: piece})
    if block.kind == "thinking":
        yield 0, _delta(index, {"type": "signature_delta", "signature": _SIGNATURE})


def content_block_stop(index: int) -> bytes:
    """Return the event that closes a block."""
    return sse_event({"type": "content_block_stop", "index": index})


def message_delta(answer: Answer) -> bytes:
    """Return the event with the stop reason and the usage of the whole answer."""
    return sse_event(
        {
            "type": "message_delta",
            "delta": {"stop_reason": answer.stop_reason, "stop_sequence": None},
            "usage": answer.usage.as_json(),
        }
    )


def message_body(answer: Answer) -> bytes:
    """Return the body of an answer that is not streamed."""
    content = [
        _content_block(
            block,
            text=block.content,
            tool_input=_tool_input(block) if block.kind == "tool_use" else {},
            signature=_SIGNATURE,
        )
        for block in answer.blocks
    ]
    return encode_json(
        _message(answer, content=content, stop_reason=answer.stop_reason, usage=answer.usage)
    )


def _message(
    answer: Answer, *, content: list[JsonObject], stop_reason: str | None, usage: Usage
) -> JsonObject:
    return {
        "id": answer.id,
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": usage.as_json(),
    }


def _content_block(
    block: Block, *, text: str, tool_input: dict[str, Any], signature: str
) -> JsonObject:
    if block.kind == "text":
        return {"type": "text", "text": text}
    if block.kind == "thinking":
        return {"type": "thinking", "thinking": text, "signature": signature}
    return {
        "type": "tool_use",
        "id": block.tool_use_id,
        "name": block.tool_name,
        "input": tool_input,
    }


def _tool_input(block: Block) -> dict[str, Any]:
    """Parse the input, which is cut off in the middle where the answer reached its limit."""
    try:
        parsed: dict[str, Any] = json.loads(block.content)
    except ValueError:
        return {}
    return parsed


def _delta(index: int, delta: JsonObject) -> bytes:
    return sse_event({"type": "content_block_delta", "index": index, "delta": delta})
