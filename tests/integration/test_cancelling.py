"""Stopping a turn: at once, at the provider's socket, with what was said and spent kept."""

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import CancelledError

from api.temporal_gateway import TemporalGateway
from schema.errors import ErrorCode
from schema.ids import ChatId, TurnId, UserId, new_id, turn_workflow_id
from schema.names import TOOLS_QUEUE
from schema.turns import FinishTurnInput, TurnReference, TurnStatus
from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.charges import check_charges
from tests.fixtures.event_stream import named, rebuild
from tests.fixtures.gate_tool import GATE_TOOL
from tests.fixtures.stack import Stack

FOREVER_S = 3600.0


async def test_a_turn_that_waits_for_its_first_token_stops(user: ApiUser, stack: Stack) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Never.", delay_to_first_s=FOREVER_S))
    chat = await user.create_chat()

    async with user.stream(chat, question) as stream:
        record = await stack.model.wait_for_request(match=question)
        await user.cancel(stream.turn_id)
        events = await stream.all()

    await user.check_whole(chat, events)
    assert events[-1].data["status"] == "cancelled"
    assert record.disconnected_at is not None
    assert await user.answer_of(chat, stream.turn_id) is None
    (charge,) = await check_charges(stack, stream.turn_id, question)
    # It is unknown whether the provider bills it: the input is the possible cost.
    assert (charge["status"], charge["estimated"]) == ("cancelled", True)
    assert charge["input_tokens"] > 0


async def test_a_turn_stopped_in_mid_answer_keeps_its_text_and_cost(
    user: ApiUser, stack: Stack
) -> None:
    question = unique()
    pieces = ("One, ", "two, ", "three.")
    stack.model.add(Script(match=question, pieces=pieces, hold=question, hold_after=2))
    chat = await user.create_chat()

    async with user.stream(chat, question) as stream:
        await stream.until_text("One, two, ")
        await user.cancel(stream.turn_id)
        events = await stream.all()

    await user.check_whole(chat, events)
    assert events[-1].data["status"] == "cancelled"
    stored = await user.answer_of(chat, stream.turn_id)
    assert stored is not None
    assert (stored["content"], stored["status"]) == ("One, two, ", "cancelled")
    (record,) = stack.model.requests_matching(question)
    assert record.disconnected_at is not None
    (charge,) = await check_charges(stack, stream.turn_id, question)
    assert charge["status"] == "cancelled"


async def test_a_turn_that_fails_while_it_is_to_stop_has_been_stopped(
    user: ApiUser, stack: Stack
) -> None:
    question = unique()
    stack.model.add(Script(match=question, pieces=("One, ", "two."), hold=question, hold_after=1))
    chat = await user.create_chat()

    async with user.stream(chat, question) as stream:
        await stream.until_text("One, ")
        turn = TurnReference(
            turn_id=TurnId(UUID(stream.turn_id)),
            chat_id=ChatId(UUID(chat)),
            user_id=UserId(UUID(user.id)),
            model="claude-haiku-5-5",
        )
        await stack.inspection.execute(
            "UPDATE turns SET cancel_requested_at = now() WHERE id = $1", turn.turn_id
        )
        ending = FinishTurnInput(
            turn=turn, status=TurnStatus.FAILED, error_code=ErrorCode.SERVICE_UNAVAILABLE
        )
        finished = await stack.services.turns.ending.finish(ending)
        stack.model.release(question)
        events = await stream.all()

    assert (finished.outcome.status, finished.outcome.error_code) == (TurnStatus.CANCELLED, None)
    assert events[-1].data["status"] == "cancelled"


async def test_a_turn_stops_while_a_tool_runs(user: ApiUser, stack: Stack) -> None:
    question, gate = unique(), unique("gate")
    call = ToolCall(id="it", name=GATE_TOOL, input={"gate": gate})
    stack.model.add(Script(match=question, text="Wait. ", tool_calls=(call,)))
    chat = await user.create_chat()

    async with user.stream(chat, question) as stream:
        await stack.gate_tool.reached(gate)
        await user.cancel(stream.turn_id)
        events = await stream.all()

    await user.check_whole(chat, events)
    assert (events[-1].data["status"], rebuild(events)) == ("cancelled", "Wait. ")
    assert stack.gate_tool.cancelled.count(gate) == 1
    assert TOOLS_QUEUE in str(
        (await stack.temporal.get_workflow_handle(f"turn-{stream.turn_id}").fetch_history()).events
    )
    (stored,) = await stack.inspection.rows(
        "SELECT status FROM tool_calls WHERE turn_id = $1", UUID(stream.turn_id)
    )
    assert stored["status"] == "failed"
    (charge,) = await check_charges(stack, stream.turn_id, question)
    assert charge["status"] == "settled"


async def test_a_queued_turn_stops_at_once(user: ApiUser, stack: Stack) -> None:
    first, second = unique(), unique()
    stack.model.add(Script(match=first, text="First.", hold=first))
    chat = await user.create_chat()

    async with user.stream(chat, first) as running:
        await stack.model.wait_for_request(match=first)
        async with user.stream(chat, second, ifBusy="enqueue") as waiting:
            cancelled = await user.cancel(waiting.turn_id)
            events = await waiting.all()
        assert cancelled["status"] == "cancelled"
        stack.model.release(first)
        await user.check_whole(chat, await running.all())

    await user.check_whole(chat, events)
    assert events[-1].data["status"] == "cancelled"
    assert stack.model.requests_matching(second) == []
    assert (await user.turn(running.turn_id))["status"] == "completed"
    assert await check_charges(stack, waiting.turn_id, second) == []


async def test_stopping_a_turn_that_has_ended_changes_nothing(user: ApiUser, stack: Stack) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Done."))
    chat = await user.create_chat()
    data = await user.ask(chat, question)

    after = await user.cancel(data["turn"]["id"])

    assert after == data["turn"]
    assert (await user.answer_of(chat, after["id"]))["status"] == "completed"  # type: ignore[index]


async def test_stopping_twice_is_stopping_once(user: ApiUser, stack: Stack) -> None:
    question = unique()
    stack.model.add(Script(match=question, pieces=("One, ", "two."), hold=question, hold_after=1))
    chat = await user.create_chat()

    async with user.stream(chat, question) as stream:
        await stream.until_text("One, ")
        await user.cancel(stream.turn_id)
        await user.cancel(stream.turn_id)
        events = await stream.all()

    await user.cancel(stream.turn_id)
    await user.check_whole(chat, events)
    assert len(await check_charges(stack, stream.turn_id, question)) == 1


async def test_the_chat_continues_after_a_stopped_turn(user: ApiUser, stack: Stack) -> None:
    first, second = unique(), unique()
    stack.model.add(Script(match=first, pieces=("Half", " way"), hold=first, hold_after=1))
    stack.model.add(Script(match=second, text="All of it."))
    chat = await user.create_chat()
    async with user.stream(chat, first) as stream:
        await stream.until_text("Half")
        await user.cancel(stream.turn_id)
        await stream.all()

    data = await user.ask(chat, second)

    assert data["assistantMessage"]["content"] == "All of it."
    (record,) = stack.model.requests_matching(second)
    assert record.body is not None
    assert [message["content"][0]["text"] for message in record.body["messages"]] == [
        first,
        "Half",
        second,
    ]


async def test_a_client_that_leaves_stops_nothing(user: ApiUser, stack: Stack) -> None:
    question = unique()
    stack.model.add(Script(match=question, pieces=("One, ", "two."), hold=question, hold_after=1))
    chat = await user.create_chat()
    async with user.stream(chat, question) as stream:
        await stream.until_text("One, ")
        seen = stream.seen[-1].id

    stack.model.release(question)
    rest = await user.events(stream.turn_id, after=seen)

    assert named(rest, "done")[0].data["status"] == "completed"
    await user.check_whole(chat, stream.seen + rest)


async def test_a_turn_that_is_to_begin_later_is_stopped_at_once(stack: Stack) -> None:
    gateway = TemporalGateway(stack.temporal, eager=False)
    turn = TurnReference(
        turn_id=TurnId(new_id()), chat_id=ChatId(new_id()), user_id=UserId(new_id()), model="m"
    )
    assert await gateway.start_turn(turn, delay=timedelta(minutes=5))

    assert await gateway.cancel_turn(turn.turn_id)

    running = stack.temporal.get_workflow_handle(turn_workflow_id(turn.turn_id))
    async with asyncio.timeout(20):
        with pytest.raises(WorkflowFailureError) as ended:
            await running.result()
    assert isinstance(ended.value.cause, CancelledError)
