"""Assembles a streamed answer: its blocks, its stop reason, its usage.

Events are taken as the official SDK's accumulator takes them, and those that gateways garble as far
as they make sense. What comes out can be stored, and sent back to the provider, whatever went in.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Final, NamedTuple
from uuid import uuid4

from schema.usage import TokenUsage
from schema.wire import make_storable
from services.models.event_stream import MAX_JSON_ITEMS, MAX_LINE_BYTES, parse_json
from services.models.failures import runaway
from services.models.reported_usage import ReportedUsage

MAX_TOOL_CALLS: Final = 256
"""How many tool calls of an answer are kept; how many of them are made is a setting."""

MAX_BLOCKS: Final = 2_000
"""How many blocks an answer may have."""

MAX_DEPTH: Final = 64
"""How deep JSON may be nested that is stored and passed on: well below every parser's own bound."""

_LARGEST_FLOAT: Final = 1.7e308

# What the API takes back as the id and the name of a call.
_USABLE_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,100}")
_NOT_IN_NAMES: Final = re.compile(r"[^a-zA-Z0-9_-]")
_MAX_NAME_CHARS: Final = 128

_STOP_REASON: Final = re.compile(r"[a-z_]{1,32}")
_UNKNOWN: Final = "unknown"
# The SDK's tool runner executes calls behind `tool_use` alone. Many gateways say `end_turn` where
# text came before the call (LiteLLM, vLLM, Bifrost), or nothing. All others may have cut it off.
_CALLS_TOOLS: Final = frozenset({"tool_use", "end_turn", ""})

_TEXT_OF: Final = {"text_delta": "text", "thinking_delta": "thinking"}
_OF_COMPACTION: Final = ("content", "encrypted_content")
_HIGH_SURROGATES: Final = ("\ud800", "\udbff")


class UnreadableInputError(Exception):
    """A value can't be stored: NaN, Infinity, or too many levels."""


@dataclass(slots=True)
class _Block:
    """A block as it grows; `pieces` are its text, its thinking or the JSON of its input."""

    kind: str
    start: dict[str, Any]
    pieces: list[str] = field(default_factory=list)
    signature: str = ""
    citations: list[Any] = field(default_factory=list)
    is_closed: bool = False
    held: str = ""

    @property
    def takes_input(self) -> bool:
        """Whether the block is a call, by a type that is known or not."""
        return self.kind.endswith("tool_use")


class Said(NamedTuple):
    """What an event adds for people to read: to the answer, and to the thoughts before it."""

    text: str = ""
    thought: str = ""

    @staticmethod
    def joined(parts: "Iterable[Said]") -> "Said":
        """Return several as one."""
        texts, thoughts = zip(*parts, strict=True) if (parts := list(parts)) else ((), ())
        return Said("".join(texts), "".join(thoughts))


SILENCE: Final = Said()


class MessageAssembly:
    """Takes the events of one answer in order.

    Units: `sent_bytes` is the size of the request.
    """

    def __init__(self, *, sent_bytes: int = 0, max_tokens: int = 0) -> None:
        self.is_stopped = False
        self.unreadable: set[str] = set()
        self._reported = ReportedUsage(sent_bytes=sent_bytes, max_tokens=max_tokens)
        self._has_start = False
        self._stop_reason = ""
        self._received = 0
        self._items_left = MAX_JSON_ITEMS
        self._blocks: list[_Block] = []
        self._by_index: dict[int, _Block] = {}

    @property
    def has_started(self) -> bool:
        """Whether the answer has begun."""
        return self._has_start or bool(self._blocks)

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing: the stop reason comes behind all blocks."""
        return self.has_started and (self.is_stopped or bool(self._stop_reason))

    @property
    def stop_reason(self) -> str:
        """A short word: the provider's, or `unknown`."""
        return self._stop_reason or _UNKNOWN

    @property
    def usage(self) -> TokenUsage:
        """The usage so far."""
        return self._reported.total(received=self._received)[0]

    @property
    def usage_estimated(self) -> bool:
        """Whether the provider left out some of the usage, or reported what can't be true."""
        return self._reported.total(received=self._received)[1]

    def take(self, event: dict[str, Any]) -> Said:
        """Add one event; return the text and the thinking that it adds.

        Errors: ModelCallError for too many blocks.
        """
        if self.is_stopped:
            return SILENCE
        match event.get("type"):
            case "message_start":
                return self._begin(event.get("message"))
            case "content_block_start":
                return self._open(event.get("index"), event.get("content_block"))
            case "content_block_delta":
                return self._grow(event.get("index"), event.get("delta"))
            case "content_block_stop":
                if block := self._at(event.get("index")):
                    block.is_closed = True
            case "message_delta":
                self._take_stop_reason(event.get("delta"))
                self._report(event.get("usage"), is_final=True)
            case "message_stop":
                self.is_stopped = True
            case _:
                pass
        return SILENCE

    def _begin(self, message: object) -> Said:
        """Take the message as it starts: of a gateway that does not stream it, with its blocks."""
        if self._has_start:
            return SILENCE
        self._has_start = True
        if not isinstance(message, dict):
            return SILENCE
        content = message.get("content")
        said = [
            self._open(index, block)
            for index, block in enumerate(content if isinstance(content, list) else ())
        ]
        for opened in self._blocks:
            opened.is_closed = True
        self._report(message.get("usage"), is_final=False)
        return Said.joined(said)

    def _report(self, usage: object, *, is_final: bool) -> None:
        self._reported.report(usage, received=self._received, is_final=is_final)

    def _take_stop_reason(self, delta: object) -> None:
        reason = delta.get("stop_reason") if isinstance(delta, dict) else None
        if isinstance(reason, str) and _STOP_REASON.fullmatch(reason):
            self._stop_reason = reason
        elif reason:
            self._stop_reason = _UNKNOWN

    def _open(self, index: object, start: object) -> Said:
        kind = start.get("type") if isinstance(start, dict) else None
        if not isinstance(start, dict) or not isinstance(kind, str) or not kind:
            return SILENCE
        block = self._new(index, kind, start)
        if kind == "thinking":
            block.signature = _text(start.get("signature"))
            return Said(thought=self._add_shown(block, start.get("thinking")))
        if kind == "text":
            citations = start.get("citations")
            block.citations += citations if isinstance(citations, list) else ()
            return Said(text=self._add_shown(block, start.get("text")))
        # All there is of a block that nobody knows, of redacted thinking, of a result.
        self._received += sum(len(value) for value in start.values() if isinstance(value, str))
        return SILENCE

    def _new(self, index: object, kind: str, start: dict[str, Any]) -> _Block:
        if len(self._blocks) == MAX_BLOCKS:
            raise runaway()
        block = _Block(kind, start)
        self._blocks.append(block)
        if isinstance(index, int):
            self._by_index[index] = block
        return block

    def _at(self, index: object) -> _Block | None:
        if isinstance(index, int):
            return self._by_index.get(index)
        return self._blocks[-1] if self._blocks else None

    def _grow(self, index: object, delta: object) -> Said:
        if not isinstance(delta, dict):
            return SILENCE
        kind, block = _text(delta.get("type")), self._at(index)
        if kind in _TEXT_OF and (block is None or block.kind != _TEXT_OF[kind]):
            # Gateways leave starts out, and send thoughts into a block of text.
            block = self._new(index, _TEXT_OF[kind], {})
        if block is None:
            return SILENCE
        match kind:
            case "text_delta":
                return Said(text=self._add_shown(block, delta.get("text")))
            case "thinking_delta":
                return Said(thought=self._add_shown(block, delta.get("thinking")))
            case "input_json_delta" if block.takes_input:
                self._add(block, _text(delta.get("partial_json")))
            case "signature_delta" if block.kind == "thinking":
                block.signature = _text(delta.get("signature"))
            case "citations_delta" if block.kind == "text":
                block.citations.append(delta.get("citation"))
            case "compaction_delta" if block.kind == "compaction":
                block.start |= {name: delta.get(name) for name in _OF_COMPACTION}
                self._received += len(_text(delta.get("content")))
            case _:
                pass
        return SILENCE

    def _add(self, block: _Block, piece: str) -> None:
        if piece:
            block.pieces.append(piece)
            self._received += len(piece)

    def _add_shown(self, block: _Block, text: object) -> str:
        """Add what can be shown now: the first half of a surrogate pair waits for the second."""
        joined = block.held + _text(text)
        low, high = _HIGH_SURROGATES
        block.held = joined[-1] if joined and low <= joined[-1] <= high else ""
        shown = make_storable(joined.removesuffix(block.held))
        self._add(block, shown)
        return shown

    def blocks(self) -> list[dict[str, Any]]:
        """Return the answer's blocks as the Messages API takes them back.

        Calls of an answer that was cut off are left out: a call without a result would make the
        conversation invalid. Calls whose input is no JSON object, or can't be stored, have an
        empty one, and their ids are in `unreadable`. Ids that can't be keys are replaced.
        """
        finished: list[dict[str, Any]] = []
        ids: set[str] = set()
        for block in self._blocks:
            if block.kind == "tool_use":
                if self._stop_reason not in _CALLS_TOOLS or len(ids) == MAX_TOOL_CALLS:
                    continue
                call = self._call(block, ids)
                ids.add(call["id"])
                finished.append(call)
            elif (done := self._finished(block)) is not None:
                finished.append(done)
        return finished

    def _call(self, block: _Block, ids: set[str]) -> dict[str, Any]:
        call_id = _text(block.start.get("id"))
        if call_id in ids or not _USABLE_ID.fullmatch(call_id):
            call_id = f"toolu_{uuid4().hex}"
        tool_input = self._input(block)
        # Where the end of the block is missing, an empty input may be one that never came.
        if tool_input is None or not (tool_input or block.is_closed):
            self.unreadable.add(call_id)
        name = _NOT_IN_NAMES.sub("_", _text(block.start.get("name"))[:_MAX_NAME_CHARS])
        return {
            "type": "tool_use",
            "id": call_id,
            "name": name or "unknown",
            "input": tool_input or {},
        }

    def _finished(self, block: _Block) -> dict[str, Any] | None:
        joined = make_storable("".join(block.pieces))
        match block.kind:
            case "text":
                return _text_block(joined, block.citations)
            case "thinking":
                signature = make_storable(block.signature)
                if not joined and not signature:
                    return None
                return {"type": "thinking", "thinking": joined, "signature": signature}
            case _:
                return self._as_it_came(block)

    def _as_it_came(self, block: _Block) -> dict[str, Any] | None:
        """Return a block that is passed back unchanged, with its input if it has one."""
        start = {name: value for name, value in block.start.items() if value is not None}
        if block.takes_input:
            start["input"] = self._input(block) or {}
        return _object_or_none(start)

    def _input(self, block: _Block) -> dict[str, Any] | None:
        """Return the input that the model wrote, or None if it can't be read as a JSON object."""
        if not block.pieces:
            # Gateways send the whole input at once, in the start of the block.
            value = block.start.get("input")
            return {} if value is None else _object_or_none(value)
        written = make_storable("".join(block.pieces))
        if len(written) > MAX_LINE_BYTES:
            return None
        try:
            value, items = parse_json(written, most=self._items_left)
        except ValueError:
            return None
        self._items_left -= items
        return _object_or_none(value)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _text_block(text: str, citations: list[Any]) -> dict[str, Any] | None:
    # The API refuses empty text blocks, though models now and then send one.
    if not text:
        return None
    kept = [cited for citation in citations if (cited := _object_or_none(citation))]
    return {"type": "text", "text": text} | ({"citations": kept} if kept else {})


def _object_or_none(value: Any) -> dict[str, Any] | None:  # noqa: ANN401 -- any JSON value
    try:
        return storable_json(value) if isinstance(value, dict) else None
    except UnreadableInputError:
        return None


def storable_json(value: Any, *, depth: int = 0) -> Any:  # noqa: ANN401 -- any JSON value
    """Return `value` with its strings storable.

    Errors: UnreadableInputError for numbers that are not finite, and for too many levels.
    """
    if depth > MAX_DEPTH:
        raise UnreadableInputError
    match value:
        case str():
            return make_storable(value)
        case dict():
            return {
                make_storable(key): storable_json(item, depth=depth + 1)
                for key, item in value.items()
            }
        case list():
            return [storable_json(item, depth=depth + 1) for item in value]
        case float() if not isfinite(value):
            raise UnreadableInputError
        case int() if abs(value) > _LARGEST_FLOAT:
            # A number for JSON, and infinite for everybody who reads it as a double.
            raise UnreadableInputError
        case _:
            return value
