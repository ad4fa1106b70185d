"""What the terminal shows of a call that awaits approval, and how it reads the answer."""

import json
from collections.abc import Iterator

import pytest

from everturn_client import ToolCallEvent
from tests.fixtures.terminal_chat import Recorder
from workers.terminal_chat.approvals import ApprovalPrompt, Decision, how_to_decide, shown_input
from workers.terminal_chat.keyboard import Keyboard

CALL = ToolCallEvent(
    tool_call_id="c", name="send", status="awaiting_approval", input={"to": "ada", "text": "Hé"}
)


class Typed(Keyboard):
    """A person who types these lines and then leaves."""

    def __init__(self, *lines: str) -> None:
        self._lines: Iterator[str] = iter(lines)
        self.asked: list[str] = []

    def ask(self, prompt: str) -> str | None:
        """Return the next line."""
        self.asked.append(prompt)
        return next(self._lines, None)


def decided(*lines: str) -> Decision | None:
    return ApprovalPrompt(Recorder(), Typed(*lines)).ask(CALL)


@pytest.mark.parametrize(
    ("lines", "decision"),
    [
        (["y"], Decision("approve")),
        ([" YES "], Decision("approve")),
        (["a"], Decision("approve", remember_for_chat=True)),
        (["n", ""], Decision("deny")),
        (["no", " Too \x00early. "], Decision("deny", reason="Too early.")),
        (["n", "x" * 3000], Decision("deny", reason="x" * 2000)),
        (["n"], Decision("deny")),
        (["e", '{"to": "bob"}'], Decision("approve", input={"to": "bob"})),
        (["e", "{}"], Decision("approve", input={})),
        (["", "what?", "y"], Decision("approve")),
        (["e", "no json", "y"], Decision("approve")),
        (["e", "[1]", "e", '{"a": 1}'], Decision("approve", input={"a": 1})),
        (["e", "[" * 100_000, "y"], Decision("approve")),
    ],
)
def test_input_becomes_a_decision(lines: list[str], decision: Decision) -> None:
    assert decided(*lines) == decision


@pytest.mark.parametrize("lines", [[], ["maybe"], ["e"]])
def test_the_end_of_the_input_decides_nothing(lines: list[str]) -> None:
    assert decided(*lines) is None


def test_the_call_is_shown_with_its_whole_input() -> None:
    screen = Recorder()

    ApprovalPrompt(screen, Typed("y")).ask(CALL)

    assert screen.notes == [
        "The assistant wants to use send with",
        '  {\n    "to": "ada",\n    "text": "Hé"\n  }',
    ]


def test_invisible_characters_are_escaped() -> None:
    hidden = {"a\u202eb": "c\u200bd\x1b[2J\x7f\x9b\u2028e"}

    shown = shown_input(json.loads(json.dumps(hidden)))

    assert shown == '  {\n    "a\\u202eb": "c\\u200bd\\u001b[2J\\u007f\\u009b\\u2028e"\n  }'


@pytest.mark.parametrize("huge", [{"a": "b" * 100_000}, {"a": list(range(1000))}])
def test_a_huge_input_is_truncated_with_a_note(huge: dict[str, object]) -> None:
    shown = shown_input(json.loads(json.dumps(huge)))

    assert len(shown) < 7_000
    assert len(shown.splitlines()) <= 61
    assert "truncated; the whole input has " in shown.splitlines()[-1]


def test_without_a_person_to_ask_it_shows_how_to_decide() -> None:
    said = how_to_decide(CALL, url="http://h/api/v1/turns/t/approvals/c")

    assert said.startswith("send awaits approval")
    assert "curl -X POST http://h/api/v1/turns/t/approvals/c " in said
    assert """-d '{"decision": "approve"}'""" in said
