"""What the two screens show of an answer while it grows, and once it is final."""

import io
import json
import re

from everturn_client import TurnState, parse_event
from everturn_client.events import ServerSentEvent
from tests.fakes.scripted_api import ScriptedEvent, delta, done, step, tool_call
from workers.terminal_chat.live_screen import LiveScreen
from workers.terminal_chat.screen import RESTART_MARK, PlainScreen, Screen


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", self.getvalue())


def show(screen: Screen, *events: ScriptedEvent) -> None:
    state = TurnState()
    with screen.answer() as view:
        for name, data in events:
            state.apply(parse_event(ServerSentEvent(name, json.dumps(data), "7-0")))
            view.show(state)


def shown_plainly(*events: ScriptedEvent) -> tuple[str, str]:
    answers, lines = io.StringIO(), io.StringIO()
    show(PlainScreen(answers=answers, lines=lines), *events)
    return answers.getvalue(), lines.getvalue()


def shown_live(*events: ScriptedEvent) -> str:
    terminal = Terminal()
    show(LiveScreen(terminal), *events)
    return terminal.text()


MESSAGE = "# Title\n\n\t<b>bold</b>  **x** [link](http://example.com)  \n" + "long " * 60 + "\n\n"


def test_plain_output_is_the_exact_message_and_one_newline() -> None:
    pieces = [delta(1, MESSAGE[start : start + 7]) for start in range(0, len(MESSAGE), 7)]
    answer, _ = shown_plainly(step(1), *pieces, done(MESSAGE))
    assert answer == f"{MESSAGE}\n"


def test_plain_status_lines_go_to_stderr() -> None:
    events = [
        step(1),
        tool_call(1, "requested"),
        tool_call(1, "running"),
        tool_call(1, "completed", output="42"),
        ("notice", {"code": "BUDGET", "message": "80 % of the budget is used."}),
        step(2),
        delta(2, "42"),
        done("42"),
    ]
    answer, lines = shown_plainly(*events)
    assert answer == "42\n"
    assert lines.splitlines() == [
        '⚙ calculator {"expression": "6*7"} · completed · 42',
        "80 % of the budget is used.",
        "scripted-model · 812 in, 96 out · $0.0012",
    ]


def test_plain_text_that_comes_back_the_same_is_not_printed_twice() -> None:
    again = [step(1), delta(1, "Hello wor"), delta(1, "ld")]
    answer, _ = shown_plainly(step(1), delta(1, "Hello"), *again, done("Hello world"))
    assert answer == "Hello world\n"


def test_plain_text_that_comes_back_different_is_marked_and_printed_again() -> None:
    other = [step(1, attempt=2), delta(1, "Good ", attempt=2), delta(1, "day", attempt=2)]
    answer, _ = shown_plainly(step(1), delta(1, "Hello"), *other, done("Good day"))
    assert answer == f"Hello\n{RESTART_MARK}\nGood day\n"


def test_plain_text_that_never_comes_back_is_marked_at_the_end() -> None:
    answer, _ = shown_plainly(step(1), delta(1, "Hello"), step(1, attempt=2), done("He"))
    assert answer == f"Hello\n{RESTART_MARK}\nHe\n"


def test_the_stored_message_is_printed_where_it_differs() -> None:
    answer, _ = shown_plainly(step(1), delta(1, "heard"), done("stored"))
    assert answer.endswith(f"{RESTART_MARK}\nstored\n")


def test_a_failed_turn_has_a_reason() -> None:
    error = ("error", {"code": "MODEL_UNAVAILABLE", "message": "The model is away."})
    answer, lines = shown_plainly(error, ("done", {"status": "failed"}))
    assert (answer, lines) == ("", "✗ The model is away. (MODEL_UNAVAILABLE)\n")


def test_a_terminal_ends_with_the_exact_message() -> None:
    summary = "scripted-model · 812 in, 96 out · $0.0012"
    shown = shown_live(step(1), delta(1, MESSAGE), done(MESSAGE))
    assert shown.endswith(f"{MESSAGE}\n{summary}\n")


def test_a_message_higher_than_the_terminal_is_whole_in_the_end() -> None:
    message = "".join(f"line {number}\n" for number in range(500))
    shown = shown_live(step(1), delta(1, message), done(message))
    assert f"{message}\nscripted-model" in shown


def test_a_terminal_retracts_the_text_of_an_older_attempt() -> None:
    other = [step(1, attempt=2), delta(1, "Good day", attempt=2)]
    terminal = Terminal()
    show(LiveScreen(terminal), step(1), delta(1, "Hello"), *other, done("Good day"))
    erased = terminal.getvalue().rpartition("\x1b[2K")[2]
    assert "Good day" in erased
    assert "Hello" not in erased


def test_a_terminal_shows_tool_calls_between_the_steps() -> None:
    called = tool_call(1, "completed", output="42")
    shown = shown_live(step(1), delta(1, "Wait."), called, step(2), delta(2, "42"), done("Wait.42"))
    line = '⚙ calculator {"expression": "6*7"} · completed · 42'
    assert f"Wait.\n{line}\n42\nscripted-model" in shown


def test_model_output_cannot_control_the_terminal() -> None:
    terminal = Terminal()
    show(LiveScreen(terminal), step(1), delta(1, "\x1b]0;owned\x07"), done("\x1b]0;owned\x07"))
    assert "\x1b]" not in terminal.getvalue()
    assert "␛]0;owned␇" in terminal.text()


def test_an_abandoned_answer_keeps_its_text_so_far() -> None:
    assert shown_live(step(1), delta(1, "Hel")).endswith("Hel\n")
    assert shown_plainly(step(1), delta(1, "Hel"))[0] == "Hel\n"
