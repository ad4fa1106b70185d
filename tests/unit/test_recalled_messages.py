"""How the terminal client shows the messages of an earlier chat."""

from typing import Any

from everturn_client import Message
from workers.terminal_chat.screen import message_lines

STORED: dict[str, Any] = {
    "id": "m",
    "chatId": "c",
    "turnId": "t",
    "role": "assistant",
    "content": "It is 42.",
    "status": "completed",
    "createdAt": "2026-01-31T09:00:00Z",
}


def lines(**fields: object) -> list[str]:
    return list(message_lines(Message.model_validate({**STORED, **fields})))


def test_an_answer_is_shown_with_its_tool_calls_and_sources() -> None:
    call = {
        "type": "tool_call",
        "toolCallId": "sum",
        "step": 1,
        "name": "calculator",
        "status": "completed",
        "input": {"expression": "6 * 7"},
        "output": "42",
        "costUsd": "0",
    }
    cited = {"type": "passage", "id": "p", "title": "Arithmetic", "score": 0.5}

    assert lines(
        parts=[
            {"type": "thinking", "text": "Six\nby seven."},
            call,
            {"type": "text", "text": "It is 42."},
            {"type": "of_tomorrow", "x": 1},
        ],
        citations=[cited, cited, {**cited, "title": None}],
    ) == [
        "✻ Six by seven.",
        '⚙ calculator {"expression": "6 * 7"} · completed · 42',
        "It is 42.",
        "Sources: Arithmetic",
    ]


def test_a_question_is_marked_and_says_why_it_has_no_answer() -> None:
    file = {"type": "attachment", "fileId": "f", "name": "a.pdf", "contentType": "x", "size": 1}
    error = {"code": "MODEL_REJECTED", "message": "No.", "retryable": False}

    assert lines(role="user", parts=[file, {"type": "text", "text": "Why?"}], error=error) == [
        "> [a.pdf]",
        "> Why?",
        "✗ No. (MODEL_REJECTED)",
    ]


def test_a_server_without_parts_shows_the_text() -> None:
    assert lines() == ["It is 42."]
