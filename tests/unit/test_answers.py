"""What a model's answer means for its turn."""

from typing import Any

import pytest

from schema.events import NoticeEvent, ToolCallEvent
from schema.turns import ToolCallStatus
from schema.usage import TokenUsage
from services.models.gateway import AnswerEnded
from services.turns.answers import closing_events, stop_word, tool_requests


def answer_of(*blocks: dict[str, Any], stop_reason: str = "end_turn") -> AnswerEnded:
    """Return an answer of these blocks."""
    return AnswerEnded(list(blocks), stop_reason, TokenUsage())


def call(number: int) -> dict[str, Any]:
    """Return a block that calls the calculator."""
    return {"type": "tool_use", "id": f"t{number}", "name": "calculator", "input": {}}


def notices(answer: AnswerEnded, *, has_text: bool = True) -> list[str]:
    """Return the codes of the notices at the answer's end."""
    requests = tool_requests(answer, at_most=3)
    events = closing_events(1, answer, requests, at_most=3, has_text=has_text)
    return [event.code for event in events if isinstance(event, NoticeEvent)]


def test_calls_beyond_the_limit_fail_at_once_and_are_told() -> None:
    answer = answer_of(*map(call, range(5)), stop_reason="tool_use")

    requests = tool_requests(answer, at_most=3)

    assert [request.problem is None for request in requests] == [True] * 3 + [False] * 2
    assert "only the first 3 were run" in str(requests[3].problem)
    events = closing_events(1, answer, requests, at_most=3, has_text=True)
    shown = [(event.status, event.output) for event in events if isinstance(event, ToolCallEvent)]
    assert (
        shown
        == [(ToolCallStatus.REQUESTED, None)] * 3
        + [(ToolCallStatus.FAILED, requests[3].problem)] * 2
    )


@pytest.mark.parametrize("reason", ["end_turn", "stop_sequence", "pause_turn"])
def test_an_answer_that_ended_as_expected_has_no_notice(reason: str) -> None:
    assert notices(answer_of(stop_reason=reason)) == []


@pytest.mark.parametrize("reason", ["", "because", "tool_use", "x" * 500])
def test_an_answer_that_ended_for_an_unknown_reason_says_so(reason: str) -> None:
    answer = answer_of(stop_reason=reason)

    (notice,) = closing_events(1, answer, [], at_most=3, has_text=True)

    assert isinstance(notice, NoticeEvent)
    assert notice.code == "unknown_stop_reason"
    assert not reason or reason not in notice.message
    assert stop_word(reason) == (reason if reason == "tool_use" else "unknown")


def test_an_answer_that_calls_tools_goes_on_whatever_its_reason() -> None:
    assert notices(answer_of(call(1), stop_reason="tool_calls")) == []


def test_a_turn_in_which_the_model_said_nothing_says_so() -> None:
    assert notices(answer_of(), has_text=False) == ["empty_answer"]
    assert notices(answer_of(stop_reason="max_tokens"), has_text=False) == ["max_tokens"]
    assert notices(answer_of(stop_reason="pause_turn"), has_text=False) == []
    assert notices(answer_of(call(1), stop_reason="tool_use"), has_text=False) == []
