"""The blocks of an answer, made of its events: texts, thoughts, and calls with their inputs."""

import json
from typing import Any

import pytest

from services.models.assembly import MAX_DEPTH, MAX_TOOL_CALLS
from services.models.event_stream import MAX_LINE_BYTES
from services.models.gateway import AnswerStarted
from tests.fakes.scripted_model.raw_answers import tool_use
from tests.fixtures.model_answers import (
    END,
    HELLO,
    START,
    TEXT,
    delta,
    ended,
    read_answer,
    started,
    stopped,
    streamed,
)


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
