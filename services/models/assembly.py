"""Assembles a streamed answer: its blocks, its stop reason, its usage."""

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from schema.usage import TokenUsage
from schema.wire import make_storable

if TYPE_CHECKING:
    # At run time it would import the whole SDK: see services.models.gateway.load_sdk.
    from anthropic.types import MessageDeltaUsage, RawMessageStreamEvent, Usage


@dataclass(slots=True)
class _Block:
    start: dict[str, Any]
    pieces: list[str] = field(default_factory=list)
    signature: str = ""


class MessageAssembly:
    """Takes the raw events of one answer in order."""

    def __init__(self) -> None:
        self.usage = TokenUsage()
        self.stop_reason = ""
        self.is_whole = False
        self.unreadable: set[str] = set()
        self._blocks: dict[int, _Block] = {}

    def take(self, event: "RawMessageStreamEvent") -> str:
        """Add one event; return the text that it adds to the answer."""
        match event.type:
            case "message_start":
                self.usage = _usage(event.message.usage, TokenUsage())
            case "content_block_start":
                start = event.content_block.model_dump(mode="json", exclude_none=True)
                self._blocks[event.index] = _Block(start)
                if event.content_block.type == "text" and event.content_block.text:
                    return self._add(event.index, event.content_block.text)
            case "content_block_delta":
                return self._take_delta(event.index, event.delta)
            case "message_delta":
                self.usage = _usage(event.usage, self.usage)
                self.stop_reason = event.delta.stop_reason or self.stop_reason
            case "message_stop":
                self.is_whole = True
            case _:
                pass
        return ""

    def _take_delta(self, index: int, delta: Any) -> str:  # noqa: ANN401 -- a union of the SDK's
        match delta.type:
            case "text_delta":
                return self._add(index, delta.text)
            case "input_json_delta":
                self._blocks[index].pieces.append(delta.partial_json)
            case "thinking_delta":
                self._blocks[index].pieces.append(delta.thinking)
            case "signature_delta":
                self._blocks[index].signature += delta.signature
            case _:
                pass
        return ""

    def _add(self, index: int, text: str) -> str:
        storable = make_storable(text)
        self._blocks[index].pieces.append(storable)
        return storable

    def blocks(self) -> list[dict[str, Any]]:
        """Return the answer's blocks as the Messages API takes them back.

        Tool calls whose input is no JSON object have an empty one, and are noted as unreadable.
        """
        self.unreadable = {
            part.start["id"] for part in self._blocks.values() if _is_unreadable(part)
        }
        return [block for _, part in sorted(self._blocks.items()) if (block := _finished(part))]


def _finished(block: _Block) -> dict[str, Any] | None:
    joined = "".join(block.pieces)
    match block.start["type"]:
        case "text":
            # The API refuses empty text blocks, though models now and then send one.
            return {"type": "text", "text": joined} if joined else None
        case "tool_use":
            return {
                "type": "tool_use",
                "id": block.start["id"],
                "name": block.start["name"],
                "input": _tool_input(joined) or {},
            }
        case "thinking":
            return {"type": "thinking", "thinking": joined, "signature": block.signature}
        case _:
            return block.start


def _is_unreadable(block: _Block) -> bool:
    return block.start["type"] == "tool_use" and _tool_input("".join(block.pieces)) is None


def _tool_input(text: str) -> dict[str, Any] | None:
    """Return the input that the model wrote, or None if it is not a JSON object."""
    try:
        value = json.loads(make_storable(text)) if text else {}
    except (ValueError, RecursionError):
        return None
    return _storable_json(value) if isinstance(value, dict) else None


def _storable_json(value: Any) -> Any:  # noqa: ANN401 -- any JSON value
    match value:
        case str():
            return make_storable(value)
        case dict():
            return {make_storable(key): _storable_json(item) for key, item in value.items()}
        case list():
            return [_storable_json(item) for item in value]
        case _:
            return value


def _usage(reported: "Usage | MessageDeltaUsage", before: TokenUsage) -> TokenUsage:
    """Update usage: counts are cumulative, and those that an event leaves out stay the same."""

    def newest(count: int | None, old: int) -> int:
        return old if count is None else count

    return TokenUsage(
        input_tokens=newest(reported.input_tokens, before.input_tokens),
        output_tokens=newest(reported.output_tokens, before.output_tokens),
        cache_read_tokens=newest(reported.cache_read_input_tokens, before.cache_read_tokens),
        cache_write_tokens=newest(reported.cache_creation_input_tokens, before.cache_write_tokens),
    )
