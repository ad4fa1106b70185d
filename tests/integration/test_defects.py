"""Defects of ours: each ends the work that it broke off, once, and nobody else's."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import asyncpg
import pytest
from pydantic import JsonValue
from temporalio.client import WorkflowFailureError

from services.contexts.facts import read_facts
from services.tools.definition import ToolExecution, ToolOutcome
from services.turns import ending
from services.turns.steps import Steps
from services.turns.tool_calls import ToolCalls
from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.charges import check_charges
from tests.fixtures.event_stream import Event, named, rebuild, turn_id_of
from tests.fixtures.library import ingesting_by, outcome, store_document, version_of
from tests.fixtures.mcp import McpScene
from tests.fixtures.stack import Stack
from tests.integration.test_sweep import OLD, sweep

T = TypeVar("T")

SECRET = "words that nobody else may read"


class SimulatedDefectError(Exception):
    """A defect of ours, which quotes what a person wrote."""

    def __init__(self) -> None:
        super().__init__(SECRET)


def failing_for(original: Callable[..., Awaitable[T]], chat: str) -> Callable[..., Awaitable[T]]:
    """Return the function, which fails for one chat only: all tests share the worker."""

    async def function(*arguments: object, **options: object) -> T:
        for argument in (*arguments, *options.values()):
            turn = getattr(argument, "turn", argument)
            if str(getattr(turn, "chat_id", "")) == chat:
                raise SimulatedDefectError
        return await original(*arguments, **options)

    return function


async def check_failed_once(user: ApiUser, stack: Stack, chat: str, events: list[Event]) -> None:
    """Assert one clear error, an alert, a run that names the defect, and a chat that goes on."""
    assert [event.data["code"] for event in named(events, "error")] == ["INTERNAL"]
    assert [event.name for event in events[-2:]] == ["error", "done"]
    assert events[-1].data["status"] == "failed"
    alert = await stack.inspection.value(
        "SELECT details FROM alerts WHERE kind = 'defect' AND details ->> 'error' = $1 LIMIT 1",
        SimulatedDefectError.__name__,
    )
    assert alert is not None
    handle = stack.temporal.get_workflow_handle(f"turn-{turn_id_of(events)}")
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    history = (await handle.fetch_history()).to_json()
    assert SimulatedDefectError.__name__ in history
    assert SECRET not in history


async def test_a_turn_that_cant_be_prepared_ends_as_failed(
    user: ApiUser, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat, question = await user.create_chat(), unique()
    broken = failing_for(read_facts, chat)
    monkeypatch.setattr("services.turns.preparation.read_facts", broken)

    events = await user.events_of(chat, question)

    await check_failed_once(user, stack, chat, events)
    assert stack.model.requests_matching(question) == []
    monkeypatch.undo()
    assert (await user.ask(chat, unique()))["turn"]["status"] == "completed"


async def test_an_answer_that_cant_be_stored_is_paid_for_as_often_as_attempts_allow(
    user: ApiUser, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat, question = await user.create_chat(), unique()
    stack.model.add(Script(match=question, text="Hello there.", repeat=9))

    async def complete(*_: object, **__: object) -> None:
        raise asyncpg.DataError(SECRET)

    monkeypatch.setattr(Steps, "complete", complete)

    events = await user.events_of(chat, question)

    monkeypatch.undo()
    assert [event.data["code"] for event in named(events, "error")] == ["INTERNAL"]
    assert rebuild(events) == "Hello there."
    records = stack.model.requests_matching(question)
    rows = await stack.inspection.charges(turn_id_of(events))
    assert len(records) == len(rows) == stack.settings.model_attempts
    assert {(row["status"], row["estimated"]) for row in rows} == {("failed", False)}
    assert {row["output_tokens"] for row in rows} == {records[0].usage.output_tokens}
    assert (await user.ask(chat, unique()))["turn"]["status"] == "completed"


async def test_a_turn_that_cant_be_finished_ends_without_its_content(
    user: ApiUser, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat, question = await user.create_chat(), unique()
    stack.model.add(Script(match=question, text="An answer."))
    monkeypatch.setattr(ending, "_end", failing_for(ending._end, chat))

    events = await user.events_of(chat, question)

    await check_failed_once(user, stack, chat, events)
    await check_charges(stack, turn_id_of(events), question)
    monkeypatch.undo()
    assert (await user.ask(chat, unique()))["turn"]["status"] == "completed"


async def test_a_sweep_closes_a_turn_whose_content_keeps_it_from_ending_and_all_others(
    user: ApiUser, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    chats = [await user.create_chat() for _ in range(2)]
    turns = []
    for chat in chats:
        question = unique()
        stack.model.add(Script(match=question, pieces=("Half", " way"), hold=question))
        async with user.stream(chat, question) as stream:
            await stack.model.wait_for_request(match=question)
            await stack.temporal.get_workflow_handle(f"turn-{stream.turn_id}").terminate()
            turns.append(stream.turn_id)
    monkeypatch.setattr(ending, "_end", failing_for(ending._end, chats[0]))
    for turn_id in turns:
        await stack.inspection.age(turn_id, by=OLD)

    await sweep(stack)

    for turn_id in turns:
        turn = await user.turn(turn_id)
        assert (turn["status"], turn["error"]["code"]) == ("failed", "SERVICE_UNAVAILABLE")


async def test_a_result_that_cant_be_stored_is_an_error_for_the_model_and_the_tool_runs_once(
    user: ApiUser, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    of, question = unique(), unique()
    tool = stack.effect_tools["keyed"]
    call = ToolCall(id="it", name="effect_keyed", input={"of": of})
    stack.model.add(Script(match=question, tool_calls=(call,)))
    stack.model.add(Script(match=question, text="I see."))
    run = tool.run

    async def unstorable(
        tool_input: Mapping[str, JsonValue], execution: ToolExecution
    ) -> ToolOutcome:
        outcome = await run(tool_input, execution)
        return outcome.model_copy(
            update={"blocks": ({"type": "text", "text": "x", "n": float("nan")},)}
        )

    monkeypatch.setattr(tool, "run", unstorable)
    chat = await user.create_chat()

    events = await user.events_of(chat, question)

    await user.check_whole(chat, events)
    assert rebuild(events) == "I see."
    ended = named(events, "tool_call")[-1].data
    assert (ended["status"], ended["output"]) == (
        "failed",
        "The tool ran, but its result can't be used.",
    )
    assert tool.runs[of] == 1


async def test_a_tool_call_that_cant_be_run_is_an_error_for_the_model(
    user: ApiUser, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    question, chat = unique(), await user.create_chat()
    call = ToolCall(id="it", name="calculator", input={"expression": "6 * 7"})
    stack.model.add(Script(match=question, tool_calls=(call,)))
    stack.model.add(Script(match=question, text="I see."))
    monkeypatch.setattr(ToolCalls, "_outcome", failing_for(ToolCalls._outcome, chat))

    events = await user.events_of(chat, question)

    await user.check_whole(chat, events)
    assert rebuild(events) == "I see."
    ended = named(events, "tool_call")[-1].data
    assert (ended["status"], ended["output"]) == ("failed", "The call was not completed.")


async def test_more_calls_than_allowed_are_errors_and_the_turn_goes_on(
    user: ApiUser, stack: Stack
) -> None:
    question, limit = unique(), stack.settings.max_tool_calls
    calls = tuple(
        ToolCall(id=f"call_{number}", name="calculator", input={"expression": f"{number} + 1"})
        for number in range(limit + 8)
    )
    stack.model.add(Script(match=question, tool_calls=calls))
    stack.model.add(Script(match=question, text="Enough."))
    chat = await user.create_chat()

    events = await user.events_of(chat, question)

    await user.check_whole(chat, events)
    assert rebuild(events) == "Enough."
    last = {event.data["toolCallId"]: event.data for event in named(events, "tool_call")}
    ended = [last[call.id]["status"] for call in calls if call.id is not None]
    assert ended == ["completed"] * limit + ["failed"] * 8
    assert "Too many tool calls" in last[f"call_{limit}"]["output"]


async def test_a_pause_of_the_model_is_continued_with_what_it_has_said(
    user: ApiUser, stack: Stack
) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="First, \n", stop_reason="pause_turn"))
    stack.model.add(Script(match=question, text="", stop_reason="pause_turn"))
    stack.model.add(Script(match=question, text="second."))
    chat = await user.create_chat()

    events = await user.events_of(chat, question)

    await user.check_whole(chat, events)
    assert rebuild(events) == "First, \nsecond."
    assert events[-1].data["status"] == "completed"
    assert named(events, "notice") == []
    _, *continued = stack.model.requests_matching(question)
    for record in continued:
        assert record.body is not None
        last = record.body["messages"][-1]
        assert (last["role"], last["content"][-1]["text"]) == ("assistant", "First,")
    await check_charges(stack, turn_id_of(events), question)


async def test_a_model_that_only_pauses_reaches_the_limit_of_steps(tight: Stack) -> None:
    user = await tight.sign_up()
    question = unique()
    tight.model.add(Script(match=question, text="Well …", stop_reason="pause_turn", repeat=9))
    chat = await user.create_chat()

    events = await user.events_of(chat, question)

    await user.check_whole(chat, events)
    assert [event.data["code"] for event in named(events, "error")] == ["MAX_STEPS_EXCEEDED"]
    assert len(tight.model.requests_matching(question)) == tight.settings.max_steps


async def test_an_unknown_stop_reason_is_told_and_quoted_nowhere(
    user: ApiUser, stack: Stack
) -> None:
    question, reason = unique(), unique("reason")
    stack.model.add(Script(match=question, text="Hello.", stop_reason=reason))
    chat = await user.create_chat()

    events = await user.events_of(chat, question)

    await user.check_whole(chat, events)
    assert events[-1].data["status"] == "completed"
    assert [event.data["code"] for event in named(events, "notice")] == ["unknown_stop_reason"]
    assert reason not in str([event.data for event in events])
    handle = stack.temporal.get_workflow_handle(f"turn-{turn_id_of(events)}")
    assert reason not in (await handle.fetch_history()).to_json()


async def test_a_document_that_cant_be_read_for_a_defect_of_ours_fails_with_a_problem(
    user: ApiUser, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    def split(*_: object) -> None:
        raise SimulatedDefectError

    monkeypatch.setattr("services.knowledge.ingestion.split", split)
    # Between its attempts, background work waits for seconds.
    monkeypatch.setattr("activities.failures.DEFECT_ATTEMPTS", 2)
    version = await store_document(stack, user, b"Some text.")

    async with ingesting_by(stack, stack.foundation.embedder) as ingest:
        handle = await ingest(version)
        with pytest.raises(WorkflowFailureError) as raised:
            await outcome(handle)

    assert getattr(raised.value.cause, "type", None) == SimulatedDefectError.__name__
    assert SECRET not in (await handle.fetch_history()).to_json()
    stored = await version_of(user, str(version.document_id))
    assert stored["status"] == "failed"
    assert "after several attempts" in stored["problem"]


async def test_a_server_whose_tools_cant_be_read_for_a_defect_of_ours_has_a_problem(
    mcp: McpScene, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check_tools(*_: object) -> None:
        raise SimulatedDefectError

    server = await mcp.process()
    monkeypatch.setattr("services.mcp.refresh.check_tools", check_tools)

    with pytest.raises(SimulatedDefectError):
        await mcp.refresh.refresh(await mcp.reference(server))

    row = await mcp.row(server)
    assert row["status"] == "failing"
    assert row["problem"] == "Internal error (SimulatedDefectError). See the worker's log."
