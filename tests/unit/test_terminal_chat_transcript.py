import json

import pytest

from tests.fakes.scripted_api import ScriptedEvent, delta, done, step, tool_call
from workers.terminal_chat.errors import UnreadableAnswerError
from workers.terminal_chat.events import read_event
from workers.terminal_chat.transcript import Transcript
from workers.terminal_chat.wording import failure_line, harmless, summary_line, tool_line


def transcript_of(*events: ScriptedEvent) -> Transcript:
    transcript = Transcript()
    for name, data in events:
        event = read_event(name, json.dumps(data))
        assert event is not None
        transcript.apply(event)
    return transcript


def test_the_message_is_the_text_of_the_steps_in_their_order() -> None:
    transcript = transcript_of(step(2), delta(2, "42."), step(1), delta(1, "It "), delta(1, "is "))
    assert transcript.text == "It is 42."


def test_a_new_attempt_clears_its_step_and_no_other() -> None:
    events = [step(1), delta(1, "a"), step(2), delta(2, "b"), step(2, attempt=2)]
    assert transcript_of(*events).text == "a"
    assert transcript_of(*events, delta(2, "c", attempt=2)).text == "ac"


def test_the_same_attempt_again_clears_its_step() -> None:
    assert transcript_of(step(1), delta(1, "ab"), step(1), delta(1, "abc")).text == "abc"


def test_an_older_attempt_does_not_count() -> None:
    late = [step(1, attempt=1), delta(1, "old", attempt=1)]
    assert transcript_of(step(1, attempt=2), delta(1, "new", attempt=2), *late).text == "new"


def test_text_of_a_newer_attempt_clears_even_without_its_step() -> None:
    assert transcript_of(step(1), delta(1, "a"), delta(1, "b", attempt=2)).text == "b"


def test_the_stored_message_stands_where_it_differs() -> None:
    transcript = transcript_of(step(1), delta(1, "heard"), done("stored"))
    assert (transcript.streamed_text, transcript.text) == ("heard", "stored")


def test_a_turn_that_ends_without_a_message_keeps_what_was_heard() -> None:
    transcript = transcript_of(step(1), delta(1, "part"), ("done", {"status": "failed"}))
    assert transcript.text == "part"


def test_a_tool_call_keeps_its_input_and_its_latest_status() -> None:
    last = ("tool_call", {"toolCallId": "call-1", "name": "calculator", "status": "completed"})
    transcript = transcript_of(step(1), tool_call(1, "requested"), last)
    [call] = transcript.tool_calls.values()
    assert tool_line(call) == '⚙ calculator {"expression": "6*7"} · completed'


def test_a_new_attempt_takes_its_tool_calls_back_and_a_snapshot_does_not() -> None:
    requested = [step(1), tool_call(1, "requested")]
    assert transcript_of(*requested, step(1, attempt=2)).tool_calls == {}
    assert len(transcript_of(*requested, step(1)).tool_calls) == 1


def test_a_notice_that_comes_again_is_kept_once() -> None:
    notice: ScriptedEvent = ("notice", {"code": "FALLBACK", "message": "Another model."})
    assert len(transcript_of(notice, notice).notices) == 1


def test_events_and_fields_of_a_newer_server_are_ignored() -> None:
    assert read_event("weather", "{}") is None
    assert read_event("step", '{"step": 1, "attempt": 1, "mood": "fine"}') is not None


def test_an_event_that_does_not_fit_its_name_is_named_in_the_error() -> None:
    with pytest.raises(UnreadableAnswerError, match="`delta`"):
        read_event("delta", '{"step": "one"}')


def test_a_long_tool_output_is_one_short_line() -> None:
    transcript = transcript_of(tool_call(1, "completed", output="line\n" * 100))
    [call] = transcript.tool_calls.values()
    assert tool_line(call).endswith("line line line…")
    assert "\n" not in tool_line(call)


def test_the_summary_says_model_tokens_and_cost() -> None:
    transcript = transcript_of(step(1), done("42"))
    assert summary_line(transcript) == "scripted-model · 812 in, 96 out · $0.0012"


def test_the_summary_of_a_cancelled_turn_says_that_it_was_stopped() -> None:
    transcript = transcript_of(step(1), done("4", status="cancelled"))
    assert summary_line(transcript).startswith("scripted-model · stopped · ")


def test_a_failure_is_told_by_its_message_and_code() -> None:
    error = ("error", {"code": "BUDGET_EXCEEDED", "message": "No budget.", "retryable": False})
    assert failure_line(transcript_of(error)) == "✗ No budget. (BUDGET_EXCEEDED)"
    assert failure_line(transcript_of(("done", {"status": "failed"}))) == "✗ The turn failed."
    assert failure_line(transcript_of(done("fine"))) is None


def test_control_characters_become_visible_on_a_terminal() -> None:
    assert harmless("a\x1b[2Jb\r\x7f\x9b\n\tc") == "a␛[2Jb␍␡\ufffd\n\tc"


def test_the_model_is_that_of_the_steps_not_one_that_a_tool_asked() -> None:
    of_tool = {"step": 1, "attempt": 1, "model": "claude-opus-5-5", "toolCallId": "call-1"}
    assert transcript_of(step(1), ("usage", of_tool)).model == "scripted-model"
