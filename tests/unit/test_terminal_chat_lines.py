"""How the parts of a turn read as lines."""

import json

from everturn_client import TurnState, parse_event
from everturn_client.events import ServerSentEvent
from tests.fakes.scripted_api import ScriptedEvent, delta, done, step, tool_call
from workers.terminal_chat.screen import failure_line, harmless, summary_line, tool_line


def state_of(*events: ScriptedEvent) -> TurnState:
    state = TurnState()
    for name, data in events:
        state.apply(parse_event(ServerSentEvent(name, json.dumps(data), "7-0")))
    return state


def test_a_tool_call_is_its_name_its_input_and_its_status() -> None:
    [call] = state_of(step(1), delta(1, "a"), tool_call(1, "completed")).tool_calls.values()
    assert tool_line(call) == '⚙ calculator {"expression": "6*7"} · completed'


def test_a_long_tool_output_is_one_short_line() -> None:
    state = state_of(tool_call(1, "completed", output="line\n" * 100))
    [call] = state.tool_calls.values()
    assert tool_line(call).endswith("line line line…")
    assert "\n" not in tool_line(call)


def test_the_summary_says_model_tokens_and_cost() -> None:
    state = state_of(step(1), done("42"))
    assert summary_line(state) == "scripted-model · 812 in, 96 out · $0.0012"


def test_the_summary_of_a_cancelled_turn_reports_the_stop() -> None:
    state = state_of(step(1), done("4", status="cancelled"))
    assert summary_line(state).startswith("scripted-model · stopped · ")


def test_a_failure_is_reported_with_its_message_and_code() -> None:
    error = ("error", {"code": "BUDGET_EXCEEDED", "message": "No budget.", "retryable": False})
    assert failure_line(state_of(error)) == "✗ No budget. (BUDGET_EXCEEDED)"
    assert failure_line(state_of(("done", {"status": "failed"}))) == "✗ The turn failed."
    assert failure_line(state_of(done("fine"))) is None


def test_control_characters_become_visible_on_a_terminal() -> None:
    assert harmless("a\x1b[2Jb\r\x7f\x9b\n\tc") == "a␛[2Jb␍␡\ufffd\n\tc"
