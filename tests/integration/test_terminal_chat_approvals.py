"""Tool calls that wait for the person at the terminal: asked, decided, and gone on with."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from everturn_client import AsyncEverturn
from tests.fakes.scripted_api import (
    ScriptedApi,
    ScriptedEvent,
    ScriptedTurn,
    delta,
    done,
    failure,
    serving,
    step,
    tool_call,
)
from tests.fixtures.terminal_chat import Recorder, Terminal, open_terminal
from tests.fixtures.terminal_session import credentials_of, move_to, signed_in
from workers.terminal_chat.answering import Answering, TurnOutcome
from workers.terminal_chat.approvals import ApprovalPrompt
from workers.terminal_chat.keyboard import Keyboard

ASKING = tool_call(1, "awaiting_approval")
AFTERWARDS = [
    tool_call(1, "completed", output="42"),
    step(2),
    delta(2, "It is 42."),
    done("It is 42."),
]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without credentials, and an environment without credentials."""
    move_to(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture
def script() -> ScriptedApi:
    return ScriptedApi()


@pytest.fixture
async def url(script: ScriptedApi) -> AsyncIterator[str]:
    async with serving(script) as address:
        yield address


@pytest.fixture
async def api(url: str) -> AsyncIterator[AsyncEverturn]:
    async with signed_in(url) as client:
        yield client


class Person(Keyboard):
    """A person with prepared answers."""

    def __init__(self, *answers: str | Callable[[], str | None]) -> None:
        self._answers = iter(answers)
        self.questions: list[str] = []

    def ask(self, prompt: str) -> str | None:
        """Return the next answer."""
        self.questions.append(prompt)
        answer = next(self._answers, None)
        return answer() if callable(answer) else answer


def answering(api: AsyncEverturn, screen: Recorder, person: Person | None) -> Answering:
    approvals = None if person is None else ApprovalPrompt(screen, person)
    return Answering(
        api,
        screen,
        lambda changed: api.messages.stream("chat-1", content="6*7?", on_connection=changed),
        approvals=approvals,
    )


def waiting_turn(*more: ScriptedEvent) -> ScriptedTurn:
    """Return a turn that goes on once the call of its first step is decided about."""
    return ScriptedTurn(
        [step(1), ASKING, *more],
        when_decided={"call-1": list(AFTERWARDS)},
        when_cancelled=[done("", status="cancelled")],
    )


async def test_an_approval_lets_the_turn_continue(script: ScriptedApi, api: AsyncEverturn) -> None:
    script.script = [waiting_turn()]
    screen, person = Recorder(), Person("y")

    assert await answering(api, screen, person).run() is TurnOutcome.COMPLETED

    [decision] = script.decisions
    assert (decision.call_id, decision.body) == ("call-1", {"decision": "approve"})
    assert screen.text == "It is 42."
    assert len(person.questions) == 1


async def test_two_calls_are_asked_about_one_after_the_other(
    script: ScriptedApi, api: AsyncEverturn
) -> None:
    asking = tool_call(1, "awaiting_approval", call_id="call-2")
    turn = waiting_turn(asking)
    turn.when_decided = {"call-1": [], "call-2": list(AFTERWARDS)}
    script.script = [turn]

    person = Person("n", "Not now.", "a")
    assert await answering(api, Recorder(), person).run() is TurnOutcome.COMPLETED

    assert [decision.body for decision in script.decisions] == [
        {"decision": "deny", "reason": "Not now."},
        {"decision": "approve", "rememberForChat": True},
    ]


async def test_an_input_that_the_api_refuses_can_be_typed_again(
    script: ScriptedApi, api: AsyncEverturn
) -> None:
    script.script = [waiting_turn()]
    script.decision_refusals = [failure(400, "VALIDATION_ERROR", "`expression` is missing.")]
    screen, person = Recorder(), Person("e", "{}", "e", '{"expression": "6*8"}')

    assert await answering(api, screen, person).run() is TurnOutcome.COMPLETED

    assert [decision.body.get("input") for decision in script.decisions] == [
        {},
        {"expression": "6*8"},
    ]
    assert "`expression` is missing. (VALIDATION_ERROR)" in screen.notes


async def test_a_call_that_was_already_decided_is_reported_and_the_turn_continues(
    script: ScriptedApi, api: AsyncEverturn
) -> None:
    script.script = [ScriptedTurn([step(1), ASKING, *AFTERWARDS])]
    script.decision_refusals = [failure(409, "CONFLICT", "It was denied before.")]
    screen = Recorder()

    assert await answering(api, screen, Person("y")).run() is TurnOutcome.COMPLETED

    assert "It was denied before. (CONFLICT)" in screen.notes
    assert screen.text == "It is 42."


async def test_a_decision_is_sent_again_while_the_api_is_unavailable(
    script: ScriptedApi, api: AsyncEverturn
) -> None:
    script.script = [waiting_turn()]
    script.decision_refusals = [failure(503, "SERVICE_UNAVAILABLE", "Away.", retryable=True)]
    person = Person("y")

    assert await answering(api, Recorder(), person).run() is TurnOutcome.COMPLETED

    assert len(script.decisions) == 2
    assert len(person.questions) == 1


async def test_a_stream_that_is_cut_after_the_question_does_not_ask_again(
    script: ScriptedApi, api: AsyncEverturn
) -> None:
    turn = waiting_turn()
    turn.when_decided = {"call-1": [ASKING, *AFTERWARDS]}
    script.script, script.cuts = [turn], [2]
    person = Person("y")

    assert await answering(api, Recorder(), person).run() is TurnOutcome.COMPLETED

    assert len(person.questions) == 1


async def test_an_interrupt_at_the_question_cancels_the_turn(
    script: ScriptedApi, api: AsyncEverturn
) -> None:
    def interrupt() -> str:
        raise KeyboardInterrupt

    script.script = [waiting_turn(tool_call(1, "awaiting_approval", call_id="call-2"))]
    screen, person = Recorder(), Person(interrupt, "y")

    assert await answering(api, screen, person).run() is TurnOutcome.CANCELLED

    assert (len(script.cancelled), script.decisions) == (1, [])
    assert len(person.questions) == 1


@pytest.mark.parametrize("person", [None, Person()])
async def test_without_an_answer_it_shows_how_to_decide_and_waits(
    script: ScriptedApi, api: AsyncEverturn, person: Person | None
) -> None:
    script.script = [turn] = [waiting_turn()]
    screen = Recorder()
    running = asyncio.create_task(answering(api, screen, person).run())
    await screen.notes_hold("curl -X POST")

    await api.turns.decide(turn.id, "call-1", "approve")

    assert await asyncio.wait_for(running, 10) is TurnOutcome.COMPLETED
    path = f"{api.base_url}/api/v1/turns/{turn.id}/approvals/call-1"
    assert any(path in note for note in screen.notes)


class Pausing(Recorder):
    """A screen that knows whether it is paused."""

    is_paused = False

    @contextmanager
    def _paused(self) -> Iterator[None]:
        self.is_paused = True
        yield
        self.is_paused = False

    def paused(self) -> AbstractContextManager[None]:
        """Pause for the block."""
        return self._paused()


async def test_nothing_is_drawn_while_the_person_is_asked(
    script: ScriptedApi, api: AsyncEverturn
) -> None:
    script.script = [waiting_turn()]
    screen, seen = Pausing(), list[bool]()

    def answer() -> str:
        seen.append(screen.is_paused)
        return "y"

    assert await answering(api, screen, Person(answer)).run() is TurnOutcome.COMPLETED
    assert (seen, screen.is_paused) == ([True], False)


@pytest.fixture
async def terminal(
    url: str, home: Path, script: ScriptedApi, api: AsyncEverturn
) -> AsyncIterator[Terminal]:
    """A terminal whose person is signed in, and has asked."""
    assert credentials_of(url).load() is not None
    async with open_terminal(url, home) as opened:
        await opened.prompts(times=1)
        opened.type("6*7?\n")
        await opened.shows(lambda text: text.endswith("[e]dit the input: "))
        yield opened


@pytest.fixture
def waiting(script: ScriptedApi) -> ScriptedTurn:
    """The turn at the terminal."""
    turn = waiting_turn()
    turn.events.insert(1, delta(1, "Let me see. "))
    turn.when_decided["call-1"][-1] = done("Let me see. It is 42.")
    script.script = [turn]
    return turn


@pytest.mark.usefixtures("waiting")
async def test_a_person_edits_the_input_at_the_terminal(
    script: ScriptedApi, terminal: Terminal
) -> None:
    assert "… Let me see.\nThe assistant wants to use calculator with" in terminal.text
    assert '"expression": "6*7"' in terminal.text
    terminal.type("e\n")
    await terminal.shows(lambda text: text.endswith("on one line: "))
    terminal.type('{"expression": "6*8"}\n')
    await terminal.prompts(times=2)
    terminal.type("\x04")

    assert await terminal.exit_code() == 0
    [decision] = script.decisions
    assert decision.body == {"decision": "approve", "input": {"expression": "6*8"}}
    assert "Let me see. \n" in terminal.text
    assert "It is 42.\n" in terminal.text


@pytest.mark.usefixtures("waiting")
async def test_a_person_stops_the_turn_at_the_question(
    script: ScriptedApi, terminal: Terminal
) -> None:
    await terminal.interrupt(lambda text: text.count("\n> ") >= 2)
    terminal.type("\x04")

    assert await terminal.exit_code() == 0
    assert (len(script.cancelled), script.decisions) == (1, [])
    assert "stopped" in terminal.text
