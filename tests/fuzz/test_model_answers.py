"""Generated answers of models: legal ones against the SDK's accumulator, then all others."""

import asyncio
import copy
import json
import math
import os
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Final, cast

import httpx2
import pytest
from anthropic.lib.streaming import _beta_messages, _messages
from anthropic.types import RawMessageStreamEvent
from anthropic.types.beta import BetaRawMessageStreamEvent
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from services.models.assembly import MAX_DEPTH
from tests.fixtures.model_answers import SENT_BYTES, Answer, read_answer
from tests.fuzz.conftest import EXAMPLES_VARIABLE
from tests.fuzz.legal_answers import (
    MAX_TOKENS,
    Grown,
    Legal,
    beta_blocks,
    blocks,
    legal_streams,
    values,
    written,
)
from tests.fuzz.probing import SEED

generated = settings(
    database=None,
    deadline=None,
    max_examples=10 * int(os.environ.get(EXAMPLES_VARIABLE, "4")),
    suppress_health_check=list(HealthCheck),
)


CALLS_TOOLS: Final = frozenset({"tool_use", "end_turn"})


def read(body: bytes, data: st.DataObject) -> Answer:
    """Read the body, which comes in chunks of some size."""
    size = data.draw(st.sampled_from([1, 3, 64, 1000, 100_000]))
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    return asyncio.run(read_answer(chunks, max_tokens=MAX_TOKENS))


@pytest.mark.parametrize(("of", "is_beta"), [(blocks, False), (beta_blocks, True)])
@seed(SEED)
@generated
@given(data=st.data())
def test_a_legal_answer_is_what_the_sdk_accumulates(
    data: st.DataObject, *, of: st.SearchStrategy[Grown], is_beta: bool
) -> None:
    legal = data.draw(legal_streams(of=of))

    answer = read(data.draw(written(legal.events)), data)

    assert answer.whole.blocks == accumulated(legal, is_beta=is_beta)
    assert answer.whole.stop_reason == legal.reason
    assert not answer.whole.unreadable
    assert answer.text == said(answer.whole.blocks, "text")
    assert answer.thinking == said(answer.whole.blocks, "thinking")


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


def said(blocks: list[dict[str, Any]], kind: str) -> str:
    """Return what the blocks of a kind say."""
    return "".join(block[kind] for block in blocks if block["type"] == kind)


def accumulated(legal: Legal, *, is_beta: bool) -> list[dict[str, Any]]:
    """Return the blocks of the SDK's message, as they are sent back."""
    with warnings.catch_warnings():
        # Of pydantic, about blocks that the SDK does not know.
        warnings.simplefilter("ignore", UserWarning)
        found = _accumulated(legal, is_beta=is_beta)
    return [block for block in (_sent_back(block, legal.reason) for block in found) if block]


def _accumulated(legal: Legal, *, is_beta: bool) -> list[dict[str, Any]]:
    stable, beta = None, None
    buffers: dict[int, bytes] = {}
    for event in copy.deepcopy(legal.events):
        if event["type"] in {"ping", "a_new_event"}:
            continue
        # The SDK fails where usage is left out.
        if event["type"] == "message_start":
            event["message"]["usage"] = {"input_tokens": 1, "output_tokens": 1}
        if event["type"] == "message_delta":
            event["usage"] = {"output_tokens": 1}
        if is_beta:
            beta = _beta_messages.accumulate_event(
                event=cast("BetaRawMessageStreamEvent", event),
                current_snapshot=beta,
                json_bufs=buffers,
                request_headers=httpx2.Headers(),
            )
        else:
            stable = _messages.accumulate_event(
                event=cast("RawMessageStreamEvent", event),
                current_snapshot=stable,
                json_bufs=buffers,
            )
    snapshot = beta if is_beta else stable
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
            return {name: value for name, value in block.items() if value is not None}


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
    assert_storable(answer.thinking)
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
