"""Raw events of an answer put together to its blocks."""

from typing import Any

import pytest

from schema.usage import TokenUsage
from services.models.assembly import MessageAssembly


def start(**usage: int) -> dict[str, Any]:
    return {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 10, "output_tokens": 1, **usage},
        },
    }


def block(index: int, **content: object) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": content}


def delta(index: int, kind: str, **content: object) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **content}}


def end(stop_reason: str = "end_turn", **usage: int) -> list[dict[str, Any]]:
    return [
        {
            "type": "message_delta",
            "delta": {"stop_reason": stop_reason, "stop_sequence": None},
            "usage": {"output_tokens": 20, **usage},
        },
        {"type": "message_stop"},
    ]


def assembled(*events: dict[str, Any]) -> tuple[MessageAssembly, str]:
    assembly = MessageAssembly(sent_bytes=400, max_tokens=100)
    text = "".join(assembly.take(event)[0] for event in events)
    return assembly, text


def tool(index: int, call_id: str = "c1") -> dict[str, Any]:
    return block(index, type="tool_use", id=call_id, name="calculator", input={})


def test_text_is_streamed_as_it_arrives_and_complete() -> None:
    assembly, text = assembled(
        start(),
        block(0, type="text", text=""),
        delta(0, "text_delta", text="Hel"),
        delta(0, "text_delta", text="lo"),
        *end(),
    )

    assert text == "Hello"
    assert assembly.blocks() == [{"type": "text", "text": "Hello"}]
    assert (assembly.is_whole, assembly.stop_reason) == (True, "end_turn")


def test_an_answer_without_its_end_is_not_whole() -> None:
    assembly, _ = assembled(start(), block(0, type="text", text="Hel"))

    assert not assembly.is_whole


def test_text_in_the_opening_of_a_block_counts() -> None:
    assembly, text = assembled(start(), block(0, type="text", text="Hi"), *end())

    assert text == "Hi"
    assert assembly.blocks() == [{"type": "text", "text": "Hi"}]


def test_tool_input_is_parsed_from_its_pieces() -> None:
    assembly, text = assembled(
        start(),
        tool(0),
        delta(0, "input_json_delta", partial_json='{"expression"'),
        delta(0, "input_json_delta", partial_json=': "1 + 1"}'),
        *end("tool_use"),
    )

    assert text == ""
    assert assembly.blocks() == [
        {"type": "tool_use", "id": "c1", "name": "calculator", "input": {"expression": "1 + 1"}}
    ]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("", {}),
        ("{", {}),
        ("[1]", {}),
        ('"text"', {}),
        ('{"a": "\\u0000\\ud800"}', {"a": "\ufffd\ufffd"}),
        ('{"\\u0000": ["\\u0000", 1, null]}', {"\ufffd": ["\ufffd", 1, None]}),
    ],
)
def test_unstorable_tool_input_becomes_a_storable_object(
    written: str, read: dict[str, Any]
) -> None:
    assembly, _ = assembled(
        start(), tool(0), delta(0, "input_json_delta", partial_json=written), *end("tool_use")
    )

    assert assembly.blocks()[0]["input"] == read


def test_thinking_keeps_its_signature() -> None:
    assembly, text = assembled(
        start(),
        block(0, type="thinking", thinking="", signature=""),
        delta(0, "thinking_delta", thinking="Hm"),
        delta(0, "thinking_delta", thinking="m."),
        delta(0, "signature_delta", signature="c2ln"),
        block(1, type="text", text=""),
        delta(1, "text_delta", text="Yes."),
        *end(),
    )

    assert text == "Yes."
    assert assembly.blocks() == [
        {"type": "thinking", "thinking": "Hmm.", "signature": "c2ln"},
        {"type": "text", "text": "Yes."},
    ]


def test_redacted_thinking_is_returned_unchanged() -> None:
    assembly, _ = assembled(start(), block(0, type="redacted_thinking", data="eA=="), *end())

    assert assembly.blocks() == [{"type": "redacted_thinking", "data": "eA=="}]


def test_empty_texts_are_left_out_and_blocks_stay_as_they_came() -> None:
    assembly, _ = assembled(
        start(),
        tool(0, "c1"),
        block(1, type="text", text=""),
        tool(2, "c2"),
        *end("tool_use"),
    )

    assert [found.get("id") for found in assembly.blocks()] == ["c1", "c2"]


def test_unstorable_characters_are_replaced_in_stream_and_block_alike() -> None:
    assembly, text = assembled(
        start(), block(0, type="text", text=""), delta(0, "text_delta", text="a\x00b"), *end()
    )

    assert text == "a\ufffdb"
    assert assembly.blocks() == [{"type": "text", "text": "a\ufffdb"}]


def test_usage_is_the_newest_of_each_count() -> None:
    assembly, _ = assembled(
        start(cache_read_input_tokens=7, cache_creation_input_tokens=3), *end(input_tokens=11)
    )

    assert assembly.usage == TokenUsage(
        input_tokens=11, output_tokens=20, cache_read_tokens=7, cache_write_tokens=3
    )
