"""Tools that fail in every way: how often they run, and what the model reads."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from schema.ids import ChatId, TurnId, UserId
from schema.turns import RunToolInput, ToolCallStatus, TurnReference
from services.database import Database
from services.tools.ledger import ToolLedger
from services.turns.tool_attempts import ToolAttempts, ToolPostponedError
from services.turns.tool_calls import ToolCalls
from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.event_stream import Event, named
from tests.fixtures.stack import Stack
from tests.fixtures.workflow_tools import RegisteredTool, running_call

PERHAPS = "The call may have taken effect: check before you repeat it."


@asynccontextmanager
async def set_to(stack: Stack, name: str, column: str, value: object) -> AsyncIterator[None]:
    """Set how a tool runs that only the worker knows."""
    await stack.inspection.execute(
        f"INSERT INTO tool_settings (name, {column}) VALUES ($1, $2)", name, value
    )
    try:
        yield
    finally:
        await stack.inspection.execute("DELETE FROM tool_settings WHERE name = $1", name)


def scripted(stack: Stack, question: str, *calls: ToolCall) -> None:
    stack.model.add(Script(match=question, tool_calls=calls))
    stack.model.add(Script(match=question, text="I see."))


async def called(
    stack: Stack, user: ApiUser, retry_class: str, *, of: str, **tool_input: object
) -> dict[str, Any]:
    """Call the tool in a turn and return the last event of its call."""
    question = unique()
    call = ToolCall(id="it", name=f"effect_{retry_class}", input={"of": of, **tool_input})
    scripted(stack, question, call)
    events = await user.events_of(await user.create_chat(), question)
    assert events[-1].data["status"] == "completed"
    assert events[-1].data["assistantMessage"]["content"] == "I see."
    return last_calls(events)["it"]


def last_calls(events: list[Event]) -> dict[str, dict[str, Any]]:
    return {event.data["toolCallId"]: event.data for event in named(events, "tool_call")}


@pytest.mark.parametrize("retry_class", ["never", "keyed", "idempotent"])
async def test_a_tool_that_answers_runs_once(stack: Stack, user: ApiUser, retry_class: str) -> None:
    of = unique()

    ended = await called(stack, user, retry_class, of=of)

    assert (ended["status"], ended["output"]) == ("completed", "effect 1")
    assert len(stack.effect_tools[retry_class].effects[of]) == 1


async def test_a_call_that_may_run_once_is_not_repeated_when_its_outcome_is_lost(
    stack: Stack, user: ApiUser
) -> None:
    of = unique()

    ended = await called(stack, user, "never", of=of, mode="broken", times=9)

    assert ended["status"] == "failed"
    assert ended["output"].startswith("The connection broke. The outcome of this call is unknown")
    assert len(stack.effect_tools["never"].effects[of]) == 1


async def test_a_call_that_may_run_once_is_retried_while_it_cannot_have_arrived(
    stack: Stack, user: ApiUser
) -> None:
    of = unique()

    ended = await called(stack, user, "never", of=of, mode="unreachable", times=2)

    assert (ended["status"], ended["output"]) == ("completed", "effect 1")
    assert stack.effect_tools["never"].runs[of] == 3


async def test_a_second_execution_of_a_call_that_may_run_once_does_not_repeat_it(
    stack: Stack, user: ApiUser
) -> None:
    of, question = unique(), unique()
    tool = stack.effect_tools["never"]
    call = ToolCall(id="it", name="effect_never", input={"of": of, "mode": "wait"})
    async with set_to(stack, "effect_never", "timeout_s", 60.0):
        scripted(stack, question, call)
        chat = await user.create_chat()
        async with user.stream(chat, question) as stream:
            await asyncio.wait_for(tool.waiting[of].wait(), 20)
            again = await stack.activities.tools._tool_calls.run(
                run_input(user, chat, stream.turn_id)
            )
            tool.released[of].set()
            events = await stream.all()

    assert again.status is ToolCallStatus.FAILED
    assert "The outcome of this call is unknown" in last_calls(events)["it"]["output"]
    assert len(tool.effects[of]) == 1


def run_input(user: ApiUser, chat: str, turn_id: str) -> RunToolInput:
    turn = TurnReference(
        turn_id=TurnId(UUID(turn_id)),
        chat_id=ChatId(UUID(chat)),
        user_id=UserId(UUID(user.id)),
        model="claude-haiku-5-5",
    )
    return RunToolInput(turn=turn, step=1, tool_call_id="it", name="effect_never")


@pytest.mark.parametrize("retry_class", ["keyed", "idempotent"])
async def test_a_call_that_may_be_repeated_keeps_its_key(
    stack: Stack, user: ApiUser, retry_class: str
) -> None:
    of = unique()

    ended = await called(stack, user, retry_class, of=of, mode="broken", times=2)

    executions = stack.effect_tools[retry_class].effects[of]
    assert (ended["status"], ended["output"]) == ("completed", "effect 3")
    assert len({execution.key for execution in executions}) == 1
    assert executions[0].key == f"{executions[0].turn_id}:1:it"
    assert [execution.attempt for execution in executions] == [1, 2, 3]


@pytest.mark.parametrize(
    ("mode", "output"),
    [
        ("broken", f"The connection broke. {PERHAPS}"),
        ("unreachable", "Connection failed."),
    ],
)
async def test_a_permanently_unavailable_tool_is_abandoned(
    stack: Stack, user: ApiUser, mode: str, output: str
) -> None:
    of = unique()

    ended = await called(stack, user, "keyed", of=of, mode=mode, times=99)

    assert (ended["status"], ended["output"]) == ("failed", output)
    assert stack.effect_tools["keyed"].runs[of] == 3


@pytest.mark.parametrize(("retry_class", "runs"), [("idempotent", 3), ("never", 1)])
async def test_a_tool_with_a_bug_does_not_keep_the_turn_from_ending(
    stack: Stack, user: ApiUser, retry_class: str, runs: int
) -> None:
    of = unique()

    ended = await called(stack, user, retry_class, of=of, mode="bug", times=99)

    assert ended["status"] == "failed"
    assert "a bug" not in ended["output"]
    assert stack.effect_tools[retry_class].runs[of] == runs


@pytest.mark.parametrize("retry_class", ["keyed", "never"])
async def test_a_tool_that_never_answers_times_out(
    stack: Stack, user: ApiUser, retry_class: str
) -> None:
    ended = await called(stack, user, retry_class, of=unique(), mode="hang")

    assert ended["status"] == "failed"
    assert ended["output"].startswith("The tool did not answer within 1 s.")
    assert ("The outcome of this call is unknown" in ended["output"]) is (retry_class == "never")


async def test_ten_mebibytes_of_output_are_cut(stack: Stack, user: ApiUser) -> None:
    ended = await called(stack, user, "keyed", of=unique(), mode="huge")

    assert 19_900 < len(ended["output"]) <= 20_000
    assert ended["output"].endswith("of 10,485,760 characters are shown.]")


async def test_binary_output_becomes_text(stack: Stack, user: ApiUser) -> None:
    ended = await called(stack, user, "keyed", of=unique(), mode="binary")

    assert ended["status"] == "completed"
    assert "\x00" not in ended["output"]


async def test_calls_that_fail_do_not_stop_their_siblings(stack: Stack, user: ApiUser) -> None:
    question, fine = unique(), unique()
    calls = [
        ToolCall(id="hang", name="effect_never", input={"of": unique(), "mode": "hang"}),
        ToolCall(id="bug", name="effect_never", input={"of": unique(), "mode": "bug"}),
        ToolCall(id="wrong", name="effect_never", input={"of": 5}),
        ToolCall(id="unknown", name="effect_of_nothing", input={}),
        ToolCall(id="fine", name="effect_never", input={"of": fine}),
        ToolCall(id="sum", name="calculator", input={"expression": "6 * 7"}),
    ]
    scripted(stack, question, *calls)

    events = await user.events_of(await user.create_chat(), question)

    ended = last_calls(events)
    assert {call: data["status"] for call, data in ended.items()} == {
        **dict.fromkeys(("hang", "bug", "wrong", "unknown"), "failed"),
        **dict.fromkeys(("fine", "sum"), "completed"),
    }
    assert events[-1].data["status"] == "completed"


async def test_a_tool_that_is_disabled_during_a_turn_does_not_run(
    stack: Stack, user: ApiUser
) -> None:
    of, gate, question = unique(), unique("gate"), unique()
    first = ToolCall(id="gate", name="gate", input={"gate": gate})
    second = ToolCall(id="it", name="effect_keyed", input={"of": of})
    stack.model.add(Script(match=question, tool_calls=(first,)))
    scripted(stack, question, second)

    async with user.stream(await user.create_chat(), question) as stream:
        await stack.gate_tool.reached(gate)
        async with set_to(stack, "effect_keyed", "enabled", value=False):
            stack.gate_tool.open(gate)
            events = await stream.all()

    ended = last_calls(events)["it"]
    assert (ended["status"], ended["output"]) == (
        "failed",
        "Tool `effect_keyed` is not available.",
    )
    assert stack.effect_tools["keyed"].runs[of] == 0


async def test_a_priced_call_is_in_the_ledger_once_and_in_the_cost_of_the_turn(
    stack: Stack, user: ApiUser
) -> None:
    of = unique()
    async with set_to(stack, "effect_keyed", "cost_usd", Decimal("0.25")):
        await called(stack, user, "keyed", of=of, mode="broken", times=1)

    turn_id = stack.effect_tools["keyed"].effects[of][0].turn_id
    charges = await stack.inspection.rows(
        "SELECT attempt, status, cost_usd, model FROM ledger "
        "WHERE turn_id = $1 AND kind = 'tool' ORDER BY attempt",
        turn_id,
    )
    assert [(c["attempt"], c["status"], float(c["cost_usd"])) for c in charges] == [
        (1, "failed", 0.0),
        (2, "settled", 0.25),
    ]
    turn = (await user.request("GET", f"/turns/{turn_id}")).json()["data"]
    assert float(turn["costUsd"]) > 0.25


async def test_progress_is_published_while_a_tool_runs(stack: Stack, user: ApiUser) -> None:
    of, question = unique(), unique()
    tool = stack.effect_tools["keyed"]
    call = ToolCall(id="it", name="effect_keyed", input={"of": of, "mode": "progress"})
    scripted(stack, question, call)

    async with user.stream(await user.create_chat(), question) as stream:
        running = await stream.until(lambda event: "progress" in event.data)
        tool.released[of].set()
        await stream.all()

    assert running.data["status"] == "running"
    assert running.data["progress"] == {"progress": 1.0, "total": 2.0, "message": "half of it"}


async def test_the_end_of_a_call_is_published_once_whichever_process_stored_it(
    stack: Stack, user: ApiUser
) -> None:
    """One execution dies before it has published what it stored, another is resumed."""
    of, question = unique(), unique()
    tool = stack.effect_tools["never"]
    call = ToolCall(id="it", name="effect_never", input={"of": of, "mode": "wait"})
    async with set_to(stack, "effect_never", "timeout_s", 60.0):
        scripted(stack, question, call)
        chat = await user.create_chat()
        async with user.stream(chat, question) as stream:
            await asyncio.wait_for(tool.waiting[of].wait(), 20)
            await stack.inspection.execute(
                "UPDATE tool_calls SET status = 'completed', output = 'stored', "
                "finished_at = now() WHERE turn_id = $1",
                UUID(stream.turn_id),
            )
            again = await stack.activities.tools._tool_calls.run(
                run_input(user, chat, stream.turn_id)
            )
            await stream.until(
                lambda event: event.name == "tool_call" and event.data["status"] == "completed"
            )
            tool.released[of].set()
            rest = await stream.all()

    assert again.status is ToolCallStatus.COMPLETED
    assert [event.data["status"] for event in named(rest, "tool_call")] == [
        "requested",
        "running",
        "completed",
    ]
    assert last_calls(rest)["it"]["output"] == "stored"


@pytest.mark.parametrize("retry_class", ["never", "keyed"])
async def test_a_call_that_could_not_be_recorded_runs_later(
    stack: Stack, user: ApiUser, retry_class: str
) -> None:
    """Postgres fails between the mark that a call runs once and the record of its cost."""
    of, name = unique(), f"effect_{retry_class}"
    call = await running_call(stack, user, RegisteredTool(name, timeout_s=1))
    await call.change("tool_calls", f"input = jsonb_build_object('of', '{of}')")
    whole = stack.activities.tools._tool_calls
    events, executor = stack.foundation.events, whole._executor
    away = ToolLedger(Database("postgresql://nobody@127.0.0.1:1/nowhere"))
    attempts = ToolAttempts(executor, away, events, attempts=3)
    database, images = stack.foundation.database, whole._images

    async with set_to(stack, name, "cost_usd", Decimal("0.25")):
        with pytest.raises(ToolPostponedError):
            await ToolCalls(database, events, executor, attempts, images=images).run(call.input)
        ended = await whole.run(call.input)

    assert ended.status is ToolCallStatus.COMPLETED
    assert stack.effect_tools[retry_class].runs[of] == 1
    [charge] = await stack.inspection.charges(str(call.things.turn))
    assert (charge["status"], charge["cost_usd"]) == ("settled", Decimal("0.25"))


@pytest.mark.parametrize("written", ['{"of": "cut o', "not json", "[1]", "null"])
async def test_an_input_that_is_not_a_json_object_is_refused_with_the_reason(
    stack: Stack, user: ApiUser, written: str
) -> None:
    question = unique()
    call = ToolCall(id="it", name="effect_keyed", written=written)
    scripted(stack, question, call)

    events = await user.events_of(await user.create_chat(), question)

    ended = last_calls(events)["it"]
    assert (ended["status"], ended["input"]) == ("failed", {})
    assert ended["output"].startswith("The input of this call was not a complete JSON object")
    assert events[-1].data["assistantMessage"]["content"] == "I see."
