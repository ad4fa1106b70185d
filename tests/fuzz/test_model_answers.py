"""Generated answers of models: legal ones against the SDK's accumulator, then all others."""

import asyncio
import copy
import json
import math
import os
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, cast

from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import RawMessageStreamEvent
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from services.models.assembly import MAX_DEPTH
from tests.fixtures.model_answers import SENT_BYTES, Answer, read_answer
from tests.fuzz.conftest import EXAMPLES_VARIABLE
from tests.fuzz.probing import SEED

generated = settings(
    database=None,
    deadline=None,
    max_examples=10 * int(os.environ.get(EXAMPLES_VARIABLE, "4")),
    suppress_health_check=list(HealthCheck),
)

MAX_TOKENS: Final = 1000
CALLS_TOOLS: Final = frozenset({"tool_use", "end_turn"})
REASONS: Final = (
    *("end_turn", "tool_use", "max_tokens", "stop_sequence", "pause_turn", "refusal"),
    *("model_context_window_exceeded", "compaction", "a_new_reason"),
)

words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
scalars = (
    words
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
    | st.none()
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(words, values, max_size=4)
counts = st.integers(0, 500_000)


def utf16_units(text: str) -> str:
    """Return the text with each character beyond the first plane as two halves."""
    units = text.encode("utf-16-le")
    return "".join(chr(units[at] | units[at + 1] << 8) for at in range(0, len(units), 2))


@st.composite
def cut(draw: st.DrawFn, text: str) -> list[str]:
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


class Grown(NamedTuple):
    """A block: how it starts, and what is added to it."""

    start: dict[str, Any]
    deltas: list[dict[str, Any]]


@st.composite
def text_blocks(draw: st.DrawFn) -> Grown:
    first, *others = draw(words.flatmap(lambda text: cut(utf16_units(text))))
    deltas: list[dict[str, Any]] = [{"type": "text_delta", "text": piece} for piece in others]
    citation = st.fixed_dictionaries(
        {"type": st.just("char_location"), "cited_text": words, "document_index": counts}
    )
    for cited in draw(st.lists(citation, max_size=2)):
        deltas.insert(
            draw(st.integers(0, len(deltas))), {"type": "citations_delta", "citation": cited}
        )
    start: dict[str, Any] = {"type": "text", "text": first}
    if draw(st.booleans()):
        start["citations"] = draw(st.sampled_from([None, []]))
    return Grown(start, deltas)


@st.composite
def thinking_blocks(draw: st.DrawFn) -> Grown:
    first, *others = draw(words.flatmap(lambda text: cut(utf16_units(text))))
    deltas = [{"type": "thinking_delta", "thinking": piece} for piece in others]
    if signature := draw(words):
        deltas.append({"type": "signature_delta", "signature": signature})
    return Grown({"type": "thinking", "thinking": first, "signature": ""}, deltas)


@st.composite
def call_blocks(draw: st.DrawFn) -> Grown:
    kind = draw(st.sampled_from(["tool_use", "server_tool_use"]))
    call_id = draw(st.from_regex(r"toolu_[a-zA-Z0-9]{8}", fullmatch=True))
    name = draw(st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True))
    start = {"type": kind, "id": call_id, "name": name, "input": {}}
    written = draw(objects)
    if draw(st.booleans()):
        pieces = draw(st.sampled_from([[], [""]]))
        return Grown(start | {"input": written}, _json_deltas(pieces))
    as_text = json.dumps(
        written, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1]))
    )
    return Grown(start, _json_deltas(draw(cut(as_text))))


def _json_deltas(pieces: list[str]) -> list[dict[str, Any]]:
    return [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]


unchanged_blocks = st.one_of(
    words.map(lambda data: Grown({"type": "redacted_thinking", "data": data}, [])),
    st.builds(
        lambda content: Grown(
            {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": content}, []
        ),
        st.lists(st.fixed_dictionaries({"type": st.just("web_search_result"), "title": words})),
    ),
    objects.map(lambda new: Grown({"type": "a_new_block", "new": new}, [])),
)
blocks = st.one_of(text_blocks(), thinking_blocks(), call_blocks(), unchanged_blocks)
unheeded: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{"type": "ping"}, {"type": "a_new_event", "index": 0, "new": [1]}]
)


class Legal(NamedTuple):
    """A stream as the API documents it, but for usage: `None` where it is left out or null."""

    events: list[dict[str, Any]]
    at_start: dict[str, int] | None
    at_end: dict[str, int] | None
    reason: str


@st.composite
def legal_streams(draw: st.DrawFn) -> Legal:
    at_start = draw(
        st.none()
        | st.fixed_dictionaries(
            {"input_tokens": counts.map(lambda count: count + 1), "output_tokens": st.just(1)},
            optional={"cache_read_input_tokens": counts, "cache_creation_input_tokens": counts},
        )
    )
    at_end = draw(st.none() | st.fixed_dictionaries({"output_tokens": st.integers(1, MAX_TOKENS)}))
    reason = draw(st.sampled_from(REASONS))
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}
    events = [
        {"type": "message_start", "message": message | draw(_as_usage(at_start))},
        *(event for event in draw(_block_events())),
        {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": None},
            **draw(_as_usage(at_end)),
        },
        {"type": "message_stop"},
    ]
    for event in draw(st.lists(unheeded, max_size=3)):
        events.insert(draw(st.integers(1, len(events) - 1)), event)
    return Legal(events, at_start, at_end, reason)


def _as_usage(usage: dict[str, int] | None) -> st.SearchStrategy[dict[str, Any]]:
    return st.just({"usage": usage}) if usage else st.sampled_from([{}, {"usage": None}])


@st.composite
def _block_events(draw: st.DrawFn) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    for index, block in enumerate(draw(st.lists(blocks, max_size=4))):
        events.append({"type": "content_block_start", "index": index, "content_block": block.start})
        events += [
            {"type": "content_block_delta", "index": index, "delta": delta}
            for delta in block.deltas
        ]
        events.append({"type": "content_block_stop", "index": index})
    return events


@st.composite
def written(draw: st.DrawFn, events: list[dict[str, Any]]) -> bytes:
    """Return a body with these events."""
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    parts = []
    for event in events:
        # Halves of characters can only be written as escapes.
        data = json.dumps(event, ensure_ascii=True)
        if draw(st.booleans()) and "\\ud" not in data:
            data = json.dumps(event, ensure_ascii=False)
        name = [f"event: {event.get('type')}"] if draw(st.booleans()) else []
        parts.append(end.join([*name, f"data: {data}", "", ""]))
    return "".join(parts).encode(errors="replace")


def read(body: bytes, data: st.DataObject) -> Answer:
    """Read the body, which comes in chunks of some size."""
    size = data.draw(st.sampled_from([1, 3, 64, 1000, 100_000]))
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    return asyncio.run(read_answer(chunks, max_tokens=MAX_TOKENS))


@seed(SEED)
@generated
@given(data=st.data())
def test_a_legal_answer_is_what_the_sdk_accumulates(data: st.DataObject) -> None:
    legal = data.draw(legal_streams())

    answer = read(data.draw(written(legal.events)), data).whole

    assert answer.blocks == accumulated(legal)
    assert answer.stop_reason == legal.reason
    assert not answer.unreadable


@seed(SEED)
@generated
@given(data=st.data())
def test_known_usage_is_kept_and_the_rest_estimated(data: st.DataObject) -> None:
    legal = data.draw(legal_streams())

    answer = read(data.draw(written(legal.events)), data)

    usage, at_start = answer.whole.usage, legal.at_start or {}
    assert usage.cache_read_tokens == at_start.get("cache_read_input_tokens", 0)
    assert usage.cache_write_tokens == at_start.get("cache_creation_input_tokens", 0)
    assert usage.input_tokens == at_start.get("input_tokens", SENT_BYTES // 4)
    if legal.at_end:
        assert usage.output_tokens == legal.at_end["output_tokens"]
    if legal.at_start and legal.at_end:
        assert not answer.whole.usage_estimated
    if not legal.at_start or (answer.text and not legal.at_end):
        assert answer.whole.usage_estimated


def accumulated(legal: Legal) -> list[dict[str, Any]]:
    """Return the blocks of the SDK's message, as they are sent back."""
    with warnings.catch_warnings():
        # Of pydantic, about blocks that the SDK does not know.
        warnings.simplefilter("ignore", UserWarning)
        found = _accumulated(legal)
    return [block for block in (_sent_back(block, legal.reason) for block in found) if block]


def _accumulated(legal: Legal) -> list[dict[str, Any]]:
    snapshot = None
    buffers: dict[int, bytes] = {}
    for event in copy.deepcopy(legal.events):
        if event["type"] in {"ping", "a_new_event"}:
            continue
        # The SDK fails where usage is left out.
        if event["type"] == "message_start":
            event["message"]["usage"] = {"input_tokens": 1, "output_tokens": 1}
        if event["type"] == "message_delta":
            event["usage"] = {"output_tokens": 1}
        snapshot = accumulate_event(
            event=cast("RawMessageStreamEvent", event),
            current_snapshot=snapshot,
            json_bufs=buffers,
        )
    assert snapshot is not None
    return [block.to_dict() for block in snapshot.content]


def _sent_back(block: dict[str, Any], reason: str) -> dict[str, Any] | None:
    match block["type"]:
        case "text":
            cited = {"citations": block["citations"]} if block.get("citations") else {}
            text = _joined(block["text"])
            return {"type": "text", "text": text, **cited} if text else None
        case "thinking":
            if not block["thinking"] and not block["signature"]:
                return None
            return block | {"thinking": _joined(block["thinking"])}
        case "tool_use" if reason not in CALLS_TOOLS:
            return None
        case _:
            return block


def _joined(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")


JUNK: Final[tuple[Any, ...]] = (
    *(None, True, 0, -1, 5, 2**63, 10**400, 1e308, math.nan, math.inf, -math.inf),
    *("", "x", "a\x00b", "\ud800", "\udc00", "x" * 5000, "{", '{"a": 1e999}', "[DONE]"),
    *([], {}, [None], {"type": "text"}, {"": {"\x00": "\ud83d"}}, {"type": None}),
    *("end_turn", "tool_use", "max_tokens", "text", "thinking", "input_json_delta", "error"),
)
deep_junk = st.integers(MAX_DEPTH, 900).map(lambda depth: json.loads("[" * depth + "]" * depth))
junk = st.sampled_from(JUNK) | deep_junk | values

Change = Callable[[list[Any], st.DrawFn], None]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:  # noqa: ANN401 -- any JSON value
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in list(keys):
        yield value, key
        yield from _places(value[key])


def _replace(events: list[Any], draw: st.DrawFn) -> None:
    if places := list(_places(events)):
        holder, key = draw(st.sampled_from(places))
        holder[key] = copy.deepcopy(draw(junk))


def _remove(events: list[Any], draw: st.DrawFn) -> None:
    if places := list(_places(events)):
        holder, key = draw(st.sampled_from(places))
        del holder[key]


def _move(events: list[Any], draw: st.DrawFn) -> None:
    if events:
        event = events.pop(draw(st.integers(0, len(events) - 1)))
        events.insert(draw(st.integers(0, len(events))), event)


def _repeat(events: list[Any], draw: st.DrawFn) -> None:
    if events:
        event = copy.deepcopy(events[draw(st.integers(0, len(events) - 1))])
        events.insert(draw(st.integers(0, len(events))), event)


def _insert(events: list[Any], draw: st.DrawFn) -> None:
    events.insert(draw(st.integers(0, len(events))), copy.deepcopy(draw(junk)))


@st.composite
def illegal_bodies(draw: st.DrawFn) -> bytes:
    events: list[Any] = copy.deepcopy(draw(legal_streams()).events)
    changes: list[Change] = [_replace, _remove, _move, _repeat, _insert]
    for change in draw(st.lists(st.sampled_from(changes), min_size=1, max_size=5)):
        change(events, draw)
    parts = []
    for event in events:
        name = event.get("type") if isinstance(event, dict) else None
        line = f"event: {name}\n" if isinstance(name, str) and draw(st.booleans()) else ""
        parts.append(f"{line}data: {json.dumps(event)}\n\n".encode(errors="replace"))
    body = bytearray(b"".join(parts))
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(body)))
        damage = draw(st.binary(max_size=8) | st.sampled_from([b"\n\n", b"data:", b"\r", b'"']))
        body[place : place + draw(st.integers(0, 3))] = damage
    if draw(st.booleans()):
        del body[draw(st.integers(0, len(body))) :]
    return bytes(body)


@seed(SEED)
@generated
@given(data=st.data())
def test_whatever_is_no_legal_answer_fails_or_can_be_stored(data: st.DataObject) -> None:
    answer = read(data.draw(illegal_bodies()), data)

    assert_storable(answer.text)
    if answer.ended is None:
        return
    ended = answer.ended
    assert_storable(ended.blocks)
    assert re.fullmatch("[a-z_]{1,32}", ended.stop_reason)
    assert max(ended.usage.model_dump().values()) < 2**31
    assert min(ended.usage.model_dump().values()) >= 0
    calls = [block for block in ended.blocks if block["type"] == "tool_use"]
    assert len({block["id"] for block in calls}) == len(calls)
    assert ended.unreadable <= {block["id"] for block in calls}
    for call in calls:
        assert isinstance(call["input"], dict)
        assert re.fullmatch("[a-zA-Z0-9_-]{1,128}", call["name"])


def assert_storable(value: object, *, depth: int = 0) -> None:
    """Check that Postgres holds the value as JSON, and that other parsers read it."""
    assert depth <= MAX_DEPTH + 2
    match value:
        case str():
            value.encode()
            assert "\x00" not in value
        case dict():
            for key, item in value.items():
                assert_storable(key)
                assert_storable(item, depth=depth + 1)
        case list():
            for item in value:
                assert_storable(item, depth=depth + 1)
        case float() | int():
            assert math.isfinite(float(value))
        case _:
            assert value is None
