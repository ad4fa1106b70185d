"""A model, or a gateway before it, that sends what it should not."""

import gzip
import json
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from tests.fakes.scripted_model.raw_answers import (
    RawAnswer,
    message_end,
    message_start,
    text,
    tool_use,
    whole,
)
from tests.hostile.conftest import SETTINGS
from tests.running_everturn.bystanders import Others
from tests.running_everturn.client import Client, names, rebuild
from tests.running_everturn.stack import ScriptedStack
from workers.demo_model.wire import sse_event

_ATTEMPTS = int(SETTINGS["EVERTURN_MODEL_ATTEMPTS"])
_STREAM = {"content-type": "text/event-stream"}
_MEGABYTE = 1024 * 1024


def _delta(**delta: Any) -> dict[str, Any]:  # noqa: ANN401 -- JSON
    return {"type": "content_block_delta", "index": 0, "delta": delta}


def _start(**block: Any) -> dict[str, Any]:  # noqa: ANN401 -- JSON
    return {"type": "content_block_start", "index": 0, "content_block": block}


def _endless_line() -> Iterator[bytes]:
    yield sse_event(message_start()) + b"data: "
    yield from [b"x" * _MEGABYTE] * 10


def _single_characters() -> Iterator[bytes]:
    yield sse_event(message_start()) + sse_event(_start(type="text", text=""))
    yield from [sse_event(_delta(type="text_delta", text="x")) * 5_000] * 10


def _many_items() -> Iterator[bytes]:
    yield sse_event(message_start()) + b"data: [" + b"[]," * 300_000 + b"1]\n\n"


@pytest.mark.parametrize(
    ("question", "chunks", "headers"),
    [
        (
            "a page in place of an answer",
            [b"<html>Welcome</html>"],
            {"content-type": "text/html"},
        ),
        ("a line of 10 MB", _endless_line(), _STREAM),
        ("50,000 single characters", _single_characters(), _STREAM),
        ("an event of 300,000 items", _many_items(), _STREAM),
        (
            "200 MB in 200 KB",
            [gzip.compress(b"data: " + b"x" * 200 * _MEGABYTE, 1)],
            _STREAM | {"content-encoding": "gzip"},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_no_answer_ends_the_turn_after_its_attempts(
    everturn: ScriptedStack,
    client: Client,
    others: Others,
    *,
    question: str,
    chunks: Iterable[bytes],
    headers: dict[str, str],
) -> None:
    answer = RawAnswer(match=question, chunks=[*chunks], headers=headers, repeat=_ATTEMPTS)
    asked = []

    async with others(question) as more:
        while await more():
            everturn.model.add_raw(answer)
            chat = await client.new_chat()
            async with client.ask(question, chat_id=chat) as stream:
                events = await stream.to_end()
            assert names(events)[-2:] == ["error", "done"]
            assert names(events).count("error") == 1
            assert events[-1].status == "failed"
            asked.append((chat, stream.turn_id))

    chat, turn_id = asked[-1]
    assert len(everturn.model.requests_matching(question)) == len(asked) * _ATTEMPTS
    ledger = await everturn.ledger(turn_id)
    assert [row["status"] for row in ledger] == ["failed"] * _ATTEMPTS
    assert all(row["estimated"] and row["input_tokens"] for row in ledger)
    await client.send(chat, "Hello")


async def test_an_answer_that_drips_is_left_in_time(
    everturn: ScriptedStack, client: Client, others: Others
) -> None:
    question = "a byte every tenth of a second"
    drops = [sse_event(message_start()), *[b":"] * 500]
    everturn.model.add_raw(RawAnswer(match=question, chunks=drops, pause_s=0.1))

    async with others(question), client.ask(question) as stream:
        events = await stream.to_end()

    assert events[-1].status == "completed"
    assert "error" not in names(events)
    assert len(everturn.model.requests_matching(question)) == 2
    first, second = await everturn.ledger(stream.turn_id)
    assert (first["status"], first["estimated"], first["input_tokens"]) == ("failed", True, 10)
    assert (second["status"], second["estimated"]) == ("settled", False)


@pytest.mark.parametrize(
    "written",
    [
        '{"expression": 1e999}',
        '{"expression": NaN}',
        '{"expression": ' + "[" * 900 + "]" * 900 + "}",
        '{"expression": 1' + "0" * 400 + "}",
        '{"expression": "' + "x" * 2 * _MEGABYTE + '"}',
    ],
    ids=["1e999", "NaN", "900 deep", "1e400", "2 MB"],
)
async def test_an_input_that_cannot_be_stored_runs_no_tool(
    everturn: ScriptedStack, client: Client, others: Others, written: str
) -> None:
    question = f"an input of {len(written)} characters, {written[16:20]}"
    attack = "inputs that cannot be stored"
    pieces = [written[start : start + 500_000] for start in range(0, len(written), 500_000)]
    call = [
        tool_use("calculator", "")[0],
        *[_delta(type="input_json_delta", partial_json=piece) for piece in pieces],
        {"type": "content_block_stop", "index": 0},
    ]
    answer = RawAnswer(match=question, chunks=whole(*call, stop_reason="tool_use"))
    asked = []

    async with others(attack, rounds=4) as more:
        while await more():
            everturn.model.add_raw(answer)
            async with client.ask(question) as stream:
                events = await stream.to_end()
            assert (names(events).count("done"), events[-1].status) == (1, "completed")
            assert "error" not in names(events)
            asked.append(stream.turn_id)

    requests = everturn.model.requests_matching(question)
    assert len(requests) == 2 * len(asked)
    body = requests[-1].body
    assert body is not None
    (result,) = body["messages"][-1]["content"]
    assert (result["type"], result["is_error"]) == ("tool_result", True)
    ledger = await everturn.ledger(asked[-1])
    assert [row["status"] for row in ledger] == ["settled"] * 2


@pytest.mark.parametrize(
    ("question", "events", "end", "estimated"),
    [
        (
            "NUL in thinking",
            (
                _start(type="thinking", thinking="\x00", signature="\x00"),
                _delta(type="thinking_delta", thinking="a\x00b"),
                *text("Hello", index=1),
            ),
            {},
            False,
        ),
        ("NUL in a block", (_start(type="new", new="\x00"), *text("Hello", index=1)), {}, False),
        ("a long stop reason", text("Hello"), {"stop_reason": "private words " * 8_000}, False),
        ("usage without end", text("Hello"), {"output_tokens": 2**70}, True),
        ("no usage", text("Hello"), {"output_tokens": None}, True),
        (
            "a call cut off",
            (*text("Hello"), *tool_use("datetime", "", index=1)),
            {"stop_reason": "max_tokens"},
            False,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_an_odd_answer_is_paid_once_and_stored(
    everturn: ScriptedStack,
    client: Client,
    others: Others,
    *,
    question: str,
    events: tuple[dict[str, Any], ...],
    end: dict[str, Any],
    estimated: bool,
) -> None:
    answer = RawAnswer(match=question, chunks=whole(*events, **end))
    asked = []

    async with others("odd answers", rounds=3) as more:
        while await more():
            everturn.model.add_raw(answer)
            async with client.ask(question) as stream:
                seen = await stream.to_end()
            assert (rebuild(seen), seen[-1].status) == ("Hello", "completed")
            assert not {"error", "tool_call"} & set(names(seen))
            asked.append(stream.turn_id)

    assert len(everturn.model.requests_matching(question)) == len(asked)
    (row,) = await everturn.ledger(asked[-1])
    assert (row["status"], row["estimated"]) == ("settled", estimated)
    if not estimated:
        assert (row["input_tokens"], row["output_tokens"]) == (10, 5)
    temporal = await everturn.temporal()
    history = await temporal.get_workflow_handle(f"turn-{asked[-1]}").fetch_history()
    assert "private" not in history.to_json()


async def test_a_message_in_place_of_a_stream_is_the_answer(
    everturn: ScriptedStack, client: Client, others: Others
) -> None:
    question = "a message in place of a stream"
    message = {
        **message_start()["message"],
        "content": [{"type": "text", "text": "Hello"}],
        "stop_reason": "end_turn",
        "usage": message_end()[0]["usage"] | {"input_tokens": 10},
    }
    everturn.model.add_raw(
        RawAnswer(
            match=question,
            chunks=[json.dumps(message).encode()],
            headers={"content-type": "application/json"},
        )
    )

    async with others("odd answers"), client.ask(question) as stream:
        events = await stream.to_end()

    assert (rebuild(events), events[-1].status) == ("Hello", "completed")
    (row,) = await everturn.ledger(stream.turn_id)
    assert (row["input_tokens"], row["output_tokens"], row["estimated"]) == (10, 5, False)
