"""Answers of models and gateways, from the bytes of the response to what is stored."""

import asyncio
import gzip
import json
import time
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from schema.usage import TokenUsage
from services.models.assembly import MAX_BLOCKS, MAX_DEPTH, MAX_TOOL_CALLS
from services.models.event_stream import MAX_LINE_BYTES, max_answer_bytes
from services.models.failures import FailureKind
from services.models.gateway import AnswerStarted, ThoughtArrived
from tests.fakes.scripted_model.raw_answers import message_end, message_start, text, tool_use
from tests.fixtures.model_answers import EVENT_STREAM, SENT_BYTES, read_answer, streamed

WHOLE = streamed(message_start(), *text("Hello"), *message_end())
HELLO = [{"type": "text", "text": "Hello"}]
START, TEXT, END = message_start(), text("Hello"), message_end()


def started(kind: str, *, index: int = 0, **content: object) -> dict[str, Any]:
    return {
        "type": "content_block_start",
        "index": index,
        "content_block": {"type": kind, **content},
    }


def delta(kind: str, *, index: int = 0, **content: object) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **content}}


def stopped(index: int = 0) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def ended(reason: object = "end_turn", **usage: object) -> list[dict[str, Any]]:
    return [
        {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage},
        {"type": "message_stop"},
    ]


@pytest.mark.parametrize(
    "body",
    [
        WHOLE,
        WHOLE.replace(b"\n", b"\r\n"),
        WHOLE.replace(b"\n", b"\r"),
        b"\xef\xbb\xbf" + WHOLE,
        b": OPENROUTER PROCESSING\n\n" + WHOLE,
        b"retry: 3000\nid: 7\n\n" + WHOLE,
        WHOLE + b"data: [DONE]\n\n",
        WHOLE.rstrip(b"\n"),
        WHOLE.replace(b"data: ", b"data:"),
        b"\n\n" + WHOLE,
        b"\n".join(line for line in WHOLE.split(b"\n") if not line.startswith(b"event:")),
        WHOLE.replace(b'"type":"message_stop"', b'"no":1'),
        streamed(START, *TEXT, *END[:1]),
        streamed(START, *TEXT, END[0], {"type": "ping"}, {"type": "new", "index": 0}, END[1]),
        WHOLE + streamed(*text(" again"), {"type": "error", "error": {"type": "api_error"}}),
        WHOLE + b"data: {\n\n",
    ],
    ids=str,
)
async def test_a_text_is_read_however_its_stream_is_written(body: bytes) -> None:
    for size in (1, 7, len(body)):
        answer = await read_answer(
            body[start : start + size] for start in range(0, len(body), size)
        )

        assert (answer.text, answer.whole.blocks) == ("Hello", HELLO)
        assert answer.whole.stop_reason == "end_turn"
        assert answer.whole.usage == TokenUsage(input_tokens=10, output_tokens=5)
        assert not answer.whole.usage_estimated


async def test_data_of_several_lines_is_one_event() -> None:
    pretty = json.dumps(START, indent=1).encode().replace(b"\n", b"\ndata: ")

    answer = await read_answer([b"data: " + pretty + b"\n\n" + streamed(*TEXT, *END)])

    assert answer.whole.blocks == HELLO


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream", ""])
async def test_a_message_that_comes_whole_is_an_answer(content_type: str) -> None:
    message = {
        "type": "message",
        "content": [{"type": "text", "text": "Hello"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 10, "output_tokens": 5},
    }
    body = json.dumps(message, indent=2).encode()

    answer = await read_answer([body[:9], body[9:]], headers={"content-type": content_type})

    assert (answer.text, answer.whole.blocks) == ("Hello", HELLO)
    assert answer.whole.usage == TokenUsage(input_tokens=10, output_tokens=5)
    assert not answer.whole.usage_estimated


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>Welcome</body></html>",
        b"{}",
        b'{"type":"message"',
        b"[]",
        b"data: [DONE]\n\n",
        b"data: 5\n\n",
        b"data: {\n\n",
        b"data: " + b"[" * 15_000 + b"\n\n",
        b'data: {"type":' + b"9" * 5000 + b"}\n\n",
        b"\xff\xfe\x00",
        streamed(START),
        streamed(START, *TEXT),
        streamed(START, *TEXT, END[0] | {"delta": {"stop_reason": None}}),
        streamed(END[1]),
        streamed(START, *TEXT, {"type": ["message_stop"]}),
    ],
    ids=lambda body: repr(body[:40]),
)
async def test_what_is_no_whole_answer_is_an_interrupted_one(body: bytes) -> None:
    answer = await read_answer([body])

    assert (answer.failed.kind, answer.failed.retryable) == (FailureKind.BROKEN_STREAM, True)


@pytest.mark.parametrize(
    ("event", "kind", "retryable"),
    [
        (b'event: error\ndata: {"error":{"type":"overloaded_error"}}', "overloaded", True),
        (b'data: {"error":{"message":"busy","code":429}}', "rate_limited", True),
        (b'data: {"error":{"type":"invalid_request_error","message":"no"}}', "refused", False),
        (b'data: {"type":"error","error":{"type":"authentication_error"}}', "credentials", False),
        (b'data: {"error":"CUDA out of memory"}', "overloaded", True),
        (b"event: error\ndata: upstream timed out", "overloaded", True),
        (b"event: error\ndata: 5", "overloaded", True),
        (b"event: error", "overloaded", True),
        (
            b'data: {"error":{"type":"invalid_request_error","message":"tools.1.name: no"}}',
            "tools_refused",
            False,
        ),
    ],
    ids=str,
)  # fmt: skip
async def test_an_error_in_mid_stream_ends_the_answer(
    event: bytes, kind: str, *, retryable: bool
) -> None:
    body = streamed(START, *TEXT) + event + b"\n\n" + streamed(*END)

    answer = await read_answer([body], tools=["one", "two"])

    assert answer.text == "Hello"
    assert (answer.failed.kind, answer.failed.retryable) == (kind, retryable)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ((START, delta("text_delta", text="Hello"), *END), HELLO),
        (
            (START, started("text", text="Hel"), delta("text_delta", text="lo"), *END),
            HELLO,
        ),
        (
            (
                START,
                started("text", text=""),
                delta("thinking_delta", thinking="Hm."),
                delta("text_delta", text="Hello"),
                *END,
            ),
            [{"type": "thinking", "thinking": "Hm.", "signature": ""}, *HELLO],
        ),
        (
            (
                START,
                started("thinking", thinking=""),
                delta("thinking_delta", thinking="Hm."),
                delta("signature_delta", signature="a"),
                delta("signature_delta", signature="b"),
                stopped(),
                started("text"),
                delta("text_delta", text="Hello"),
                *END,
            ),
            [{"type": "thinking", "thinking": "Hm.", "signature": "b"}, *HELLO],
        ),
        (
            (
                START,
                {"type": "content_block_start", "content_block": {"type": "text"}},
                {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hello"}},
                *END,
            ),
            HELLO,
        ),
        ((TEXT[0], TEXT[1], *END), HELLO),
        ((START, started("text", text=None), delta("text_delta", text=5), *TEXT, *END), HELLO),
        ((START, delta("input_json_delta", partial_json="{}"), *TEXT, *END), HELLO),
        ((START, delta("text_delta"), *TEXT, *END), HELLO),
        ((START, delta("new_delta", new="x"), *TEXT, *END), HELLO),
        (
            (
                *(START, TEXT[0]),
                {"type": "content_block_delta", "index": 0, "delta": {"type": ["text_delta"]}},
                {"type": "content_block_delta", "index": 0, "delta": {"type": {}}},
                *(*TEXT[1:], *END),
            ),
            HELLO,
        ),
        (
            (
                START,
                started("compaction", content=None, encrypted_content=None),
                delta("compaction_delta", content="So far.", encrypted_content="x"),
                *(stopped(), started("text", index=1), delta("text_delta", index=1, text="Hello")),
                *END,
            ),
            [{"type": "compaction", "content": "So far.", "encrypted_content": "x"}, *HELLO],
        ),
        (
            (START, started("new_block", new={"a": [1, None, "\x00"]}, none=None), *END),
            [{"type": "new_block", "new": {"a": [1, None, "\ufffd"]}}],
        ),
        (
            (
                START,
                started("server_tool_use", id="s1", name="web_search", input={}),
                delta("input_json_delta", partial_json='{"query": "x"}'),
                stopped(),
                started("web_search_tool_result", index=1, tool_use_id="s1", content=[]),
                stopped(1),
                *END,
            ),
            [
                {
                    "type": "server_tool_use",
                    "id": "s1",
                    "name": "web_search",
                    "input": {"query": "x"},
                },
                {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []},
            ],
        ),
        (
            (
                START,
                started("text", text="", citations=[]),
                delta("text_delta", text="Hello"),
                delta("citations_delta", citation={"type": "char_location", "cited_text": "H"}),
                delta("citations_delta", citation=float("nan")),
                *END,
            ),
            [
                {
                    "type": "text",
                    "text": "Hello",
                    "citations": [{"type": "char_location", "cited_text": "H"}],
                }
            ],
        ),
        ((START, started("thinking", thinking="", signature=""), *TEXT, *END), HELLO),
        ((START, {"type": "content_block_start", "content_block": "text"}, *TEXT, *END), HELLO),
        ((START, {"type": "content_block_delta", "delta": None}, *TEXT, *END), HELLO),
        (({"type": "message_start"}, *TEXT, *END), HELLO),
        (({"type": "message_start", "message": {"content": "x"}}, *TEXT, *END), HELLO),
        ((START, started("new", deep=json.loads("[" * 99 + "]" * 99)), *TEXT, *END), HELLO),
    ],
)  # fmt: skip
async def test_blocks_are_what_makes_sense_of_the_events(
    events: tuple[dict[str, Any], ...], expected: list[dict[str, Any]]
) -> None:
    answer = await read_answer([streamed(*events)])

    assert answer.whole.blocks == expected
    assert isinstance(answer.events[0], AnswerStarted)


def deep(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


@pytest.mark.parametrize(
    "written",
    [
        '{"expression": 1e999}',
        '{"expression": -1e999}',
        '{"expression": NaN}',
        '{"expression": [Infinity]}',
        '{"expression": 1' + "0" * 400 + "}",
        '{"expression": 1' + "0" * 5000 + "}",
        deep(MAX_DEPTH + 1),
        deep(900),
        deep(100_000),
        "[1]",
        '{"expression": "1',
        "null",
        "x" * (MAX_LINE_BYTES // 8) * 9,
        '{"a":[' + "1," * 30_000 + "1]}",
    ],
    ids=lambda written: written[:24],
)
async def test_an_input_that_cannot_be_stored_is_unreadable(written: str) -> None:
    pieces = [written[start : start + 900_000] for start in range(0, len(written), 900_000)]
    events = [delta("input_json_delta", partial_json=piece) for piece in pieces]
    call = started("tool_use", id="c1", name="calculator", input={})

    answer = await read_answer([streamed(START, call, *events, stopped(), *ended("tool_use"))])

    assert answer.whole.blocks == [
        {"type": "tool_use", "id": "c1", "name": "calculator", "input": {}}
    ]
    assert answer.whole.unreadable == {"c1"}


@pytest.mark.parametrize("written", [deep(MAX_DEPTH), '{"expression": 1e308}', '{"a": 10e-400}'])
async def test_an_input_within_the_bounds_is_read(written: str) -> None:
    answer = await read_answer([streamed(START, *tool_use("t", written), *ended("tool_use"))])

    assert answer.whole.blocks[0]["input"] == json.loads(written)
    assert not answer.whole.unreadable


async def test_the_input_in_the_start_of_a_call_counts() -> None:
    call = started("tool_use", id="c1", name="t", input={"a": 1})

    answer = await read_answer(
        [
            streamed(
                START,
                call,
                delta("input_json_delta", partial_json=""),
                stopped(),
                *ended("tool_use"),
            )
        ]
    )

    assert answer.whole.blocks[0]["input"] == {"a": 1}


async def test_nothing_of_a_block_keeps_postgres_from_storing_it() -> None:
    hostile = "a\x00b\ud800c"
    answer = await read_answer(
        [
            streamed(
                START,
                started("thinking", thinking=hostile, signature=hostile),
                started("text", index=1, text=hostile),
                started("tool_use", index=2, id=hostile, name=hostile, input={hostile: hostile}),
                stopped(2),
                started("redacted_thinking", index=3, data=hostile),
                *ended("tool_use"),
            )
        ]
    )

    kept = "a\ufffdb\ufffdc"
    thinking, said, call, redacted = answer.whole.blocks
    assert thinking == {"type": "thinking", "thinking": kept, "signature": kept}
    assert (said["text"], answer.text) == (kept, kept)
    assert (call["name"], call["input"]) == ("a_b_c", {kept: kept})
    assert redacted["data"] == kept


async def test_halves_of_a_character_that_come_apart_are_joined() -> None:
    answer = await read_answer(
        [
            b"".join(
                (
                    streamed(START, started("text", text="")),
                    rb'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta",'
                    rb'"text":"Hi \ud83d"}}' + b"\n\n",
                    rb'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta",'
                    rb'"text":"\ude00!"}}' + b"\n\n",
                    streamed(*END),
                )
            )
        ]
    )

    assert (answer.text, answer.whole.blocks[0]["text"]) == ("Hi 😀!", "Hi 😀!")


@pytest.mark.parametrize("call_id", ["", "c1", "a b", "x" * 101, None, 5])
async def test_every_call_has_an_id_of_its_own(call_id: object) -> None:
    answer = await read_answer(
        [
            streamed(
                START,
                *tool_use("t", '{"a": 1}', call_id="c1"),
                started("tool_use", index=1, id=call_id, name="t"),
                delta("input_json_delta", index=1, partial_json="{"),
                stopped(1),
                *ended("tool_use"),
            )
        ]
    )

    first, second = answer.whole.blocks
    assert first["id"] == "c1"
    assert second["id"].startswith("toolu_")
    assert answer.whole.unreadable == {second["id"]}


@pytest.mark.parametrize(
    "reason",
    [
        "max_tokens",
        "model_context_window_exceeded",
        "refusal",
        "pause_turn",
        "stop_sequence",
        "length",
        "new_reason",
    ],
)
async def test_a_call_that_may_have_been_cut_off_is_not_made(reason: str) -> None:
    for call in (tool_use("t", "", index=1), tool_use("t", '{"a": 1}', index=1)):
        answer = await read_answer([streamed(START, *TEXT, *call, *ended(reason))])

        assert answer.whole.blocks == HELLO
        assert answer.whole.stop_reason == reason


@pytest.mark.parametrize(
    ("reason", "told"),
    [("tool_use", "tool_use"), ("end_turn", "end_turn"), (None, "unknown"), ("", "unknown")],
)
async def test_a_whole_call_is_made_where_a_gateway_gives_another_reason(
    reason: object, told: str
) -> None:
    answer = await read_answer([streamed(START, *tool_use("t", ""), *ended(reason))])

    assert [block["type"] for block in answer.whole.blocks] == ["tool_use"]
    assert (answer.whole.stop_reason, answer.whole.unreadable) == (told, frozenset())


async def test_a_call_without_its_end_is_made_with_a_whole_input_only() -> None:
    begun = started("tool_use", id="c1", name="t", input={})

    whole = await read_answer([streamed(START, *tool_use("t", '{"a":1}')[:2], *ended("tool_use"))])
    empty = await read_answer([streamed(START, begun, *ended("tool_use"))])

    assert not whole.whole.unreadable
    assert empty.whole.unreadable == {"c1"}


async def test_an_answer_may_call_only_so_many_tools() -> None:
    calls = [
        event
        for index in range(MAX_TOOL_CALLS + 5)
        for event in tool_use("t", "{}", index=index, call_id=f"c{index}")
    ]

    answer = await read_answer([streamed(START, *calls, *ended("tool_use"))])

    assert len(answer.whole.blocks) == MAX_TOOL_CALLS


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("end_turn", "end_turn"),
        ("brand_new", "brand_new"),
        ("x" * 32, "x" * 32),
        ("x" * 33, "unknown"),
        ("x" * 100_000, "unknown"),
        ("Said: the user's words", "unknown"),
        ("STOP", "unknown"),
        ("a\x00", "unknown"),
        (5, "unknown"),
        ({"a": 1}, "unknown"),
        (["end_turn"], "unknown"),
    ],
    ids=lambda value: repr(value)[:20],
)
async def test_the_stop_reason_is_a_short_word(reason: object, word: str) -> None:
    answer = await read_answer([streamed(START, *TEXT, *ended(reason, output_tokens=5))])

    assert answer.whole.stop_reason == word


IN = SENT_BYTES // 4
OUT = 2  # "Hello"


def used(**counts: object) -> dict[str, object]:
    names = {
        "i": "input_tokens",
        "o": "output_tokens",
        "r": "cache_read_input_tokens",
        "w": "cache_creation_input_tokens",
    }
    return {names[name]: count for name, count in counts.items()}


@pytest.mark.parametrize(
    ("at_start", "at_end", "tokens", "estimated"),
    [
        (used(i=10, o=1), used(o=5), (10, 5, 0, 0), False),
        (used(i=10, o=1), {}, (10, OUT, 0, 0), True),
        (used(i=10, o=1), None, (10, OUT, 0, 0), True),
        ({}, used(o=5), (IN, 5, 0, 0), True),
        (None, used(o=5), (IN, 5, 0, 0), True),
        (None, None, (IN, OUT, 0, 0), True),
        (used(i=0, o=0), used(i=9, o=5), (9, 5, 0, 0), False),
        (used(i=9), used(i=0, o=5), (9, 5, 0, 0), False),
        (used(i=9), used(i=None, o=5), (9, 5, 0, 0), False),
        (used(i=9), used(o=0), (9, OUT, 0, 0), True),
        (used(i=0, r=7), used(o=5), (0, 5, 7, 0), False),
        (used(i=9, w=3), used(o=5), (9, 5, 0, 3), False),
        (used(i=9.0), used(o="5"), (9, 5, 0, 0), False),
        (used(i=10**30), used(o=5), (IN, 5, 0, 0), True),
        (used(i=9), used(o=2**63), (9, OUT, 0, 0), True),
        (used(i=9), used(o=1e300), (9, OUT, 0, 0), True),
        (used(i=-9), used(o=-5), (IN, OUT, 0, 0), True),
        (used(i=float("nan")), used(o=float("inf")), (IN, OUT, 0, 0), True),
        (used(i=True), used(o=[5]), (IN, OUT, 0, 0), True),
        (used(i=9, r="x" * 99), used(o=5), (9, 5, 0, 0), True),
        ([], "usage", (IN, OUT, 0, 0), True),
    ],
)  # fmt: skip
async def test_usage_is_what_is_known_and_believable(
    at_start: object, at_end: object, tokens: tuple[int, int, int, int], *, estimated: bool
) -> None:
    start = {"type": "message_start", "message": {"usage": at_start}}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": at_end}

    answer = await read_answer([streamed(start, *TEXT, end, {"type": "message_stop"})])

    usage = answer.whole.usage
    assert tokens == (
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
    )
    assert answer.whole.usage_estimated is estimated


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate", "GZIP"])
async def test_a_compressed_body_is_read(coding: str) -> None:
    body = zlib.compress(WHOLE) if coding == "deflate" else gzip.compress(WHOLE)

    answer = await read_answer(
        (body[start : start + 5] for start in range(0, len(body), 5)),
        headers={**EVENT_STREAM, "content-encoding": coding},
    )

    assert answer.whole.blocks == HELLO


async def test_a_compressed_body_of_several_members_is_read_whole() -> None:
    body = b"".join(gzip.compress(WHOLE[start : start + 50]) for start in range(0, len(WHOLE), 50))

    answer = await read_answer([body], headers={**EVENT_STREAM, "content-encoding": "gzip"})

    assert answer.whole.blocks == HELLO


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "gzip"])
async def test_a_body_in_another_coding_is_an_interrupted_answer(coding: str) -> None:
    answer = await read_answer([WHOLE], headers={**EVENT_STREAM, "content-encoding": coding})

    assert answer.failed.kind is FailureKind.BROKEN_STREAM


def flood(unit: bytes, megabytes: int) -> list[bytes]:
    return [unit * (1024 * 1024 // len(unit))] * megabytes


@pytest.mark.parametrize(
    ("chunks", "coding"),
    [
        ([b"data: ", *flood(b"x", 60)], ""),
        (flood(b"\n", 60), ""),
        (flood(b": keep-alive\n\n", 60), ""),
        (flood(b"data: {}\n", 60), ""),
        (flood(streamed(delta("text_delta", text="x")), 60), ""),
        ([b"{", *flood(b" ", 60)], ""),
        ([streamed({"type": "new", "x": [[]] * 9_000})] * 3, ""),
        ([streamed(*[started("text")] * (MAX_BLOCKS + 1))], ""),
        ([gzip.compress(b"\n" * 200_000_000, 1)], "gzip"),
        ([gzip.compress(b"data: " + b"x" * 200_000_000, 1)], "gzip"),
    ],
    ids=[
        "line",
        "blank",
        "comments",
        "one event",
        "deltas",
        "json",
        "items",
        "blocks",
        "bomb",
        "bomb in a line",
    ],
)
async def test_an_answer_beyond_its_bytes_is_left(chunks: list[bytes], coding: str) -> None:
    answer = await read_answer(
        [streamed(START), *chunks] if chunks[0] != b"{" and not coding else chunks,
        headers={**EVENT_STREAM, "content-encoding": coding},
        max_tokens=1,
    )

    assert (answer.failed.kind, answer.failed.retryable) == (FailureKind.RUNAWAY, True)
    assert len(answer.text) <= max_answer_bytes(1)


async def test_an_answer_that_drips_is_left_in_time() -> None:
    async def drip() -> AsyncIterator[bytes]:
        yield streamed(START)
        while True:
            yield b":\n"
            await asyncio.sleep(0.01)

    answer = await read_answer(drip(), timeout_s=0.1)

    assert answer.failed.kind is FailureKind.RUNAWAY


async def test_an_answer_that_stays_open_behind_its_end_is_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.models.event_stream._REMAINS_S", 0.05)

    async def silent() -> AsyncIterator[bytes]:
        yield WHOLE
        await asyncio.Event().wait()

    assert (await read_answer(silent())).whole.blocks == HELLO


async def test_a_connection_that_breaks_behind_the_stop_reason_takes_nothing_away() -> None:
    async def broken(*events: dict[str, Any]) -> AsyncIterator[bytes]:
        yield streamed(*events)
        raise httpx2.ReadError("gone")

    whole = await read_answer(broken(START, *TEXT, END[0]))
    half = await read_answer(broken(START, *TEXT))

    assert whole.whole.blocks == HELLO
    assert half.failed.kind is FailureKind.BROKEN_STREAM


async def test_thoughts_are_counted_as_they_come() -> None:
    thinking = [
        started("thinking", thinking=""),
        delta("thinking_delta", thinking="Hm."),
        delta("thinking_delta", thinking="Hm."),
    ]

    answer = await read_answer([streamed(START, *thinking, *END)])

    assert [event.chars for event in answer.events if isinstance(event, ThoughtArrived)] == [6]


@pytest.mark.parametrize(
    "chunks",
    [
        flood(streamed(delta("text_delta", text="x")), 1),
        flood(b"data:{}\n\n", 1),
        [streamed(*[started("new", x="é" * 50_000)] * 10), streamed(*END)],
        [streamed(*tool_use("t", json.dumps({"x": ["é" * 90] * 900})), *ended("tool_use"))],
    ],
    ids=["deltas", "empty events", "large blocks", "a large input"],
)
async def test_others_run_while_an_answer_floods_in(chunks: list[bytes]) -> None:
    waits: list[float] = []

    async def other() -> None:
        while True:
            # Of this thread's own work: the machine may have other.
            before = time.thread_time()
            await asyncio.sleep(0)
            waits.append(time.thread_time() - before)

    task = asyncio.create_task(other())
    await read_answer([streamed(START), *chunks], max_tokens=200_000)
    task.cancel()

    assert len(waits) > 2
    # Generous: it was 19 s.
    assert max(waits) < 0.25
