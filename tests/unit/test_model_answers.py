"""Answers of models and gateways, from the bytes of the response to what is stored."""

import gc
import json
from collections.abc import Iterator

import pytest

from schema.usage import TokenUsage
from services.models.failures import FailureKind
from tests.fakes.scripted_model.raw_answers import text
from tests.fixtures.model_answers import (
    END,
    HELLO,
    SENT_BYTES,
    START,
    TEXT,
    WHOLE,
    ended,
    read_answer,
    streamed,
)


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


@pytest.fixture
def uncollected() -> Iterator[None]:
    """No garbage of other tests is finalized where the stack has no room for that."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
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
