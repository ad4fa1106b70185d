"""The sweep: it starts turns without a workflow and closes those whose workflow is gone."""

import asyncio
import gc
from contextlib import AsyncExitStack
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHandle, WorkflowHistory

from schema.actors import acting_user
from schema.chats import SendMessageRequest
from schema.ids import ChatId, UserId
from schema.names import BACKGROUND_QUEUE
from schema.result import Ok
from schema.sweeps import SweepInput, SweepOutput, SweepPart
from schema.tables.columns import utc_now
from schema.turns import IfBusy
from services.turns.stranded import ActiveTurn
from tests.fakes.scripted_model.scripts import Script
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.event_stream import named, rebuild
from tests.fixtures.plans import charge
from tests.fixtures.stack import Stack
from tests.running_everturn.waiting import eventually
from workflows.sweep import Sweep
from workflows.visibility import sweep_memo

OLD = timedelta(seconds=10)
PUBLIC_URL = "https://chat.example.com"


async def start_sweep(stack: Stack) -> WorkflowHandle[Any, SweepOutput]:
    return await stack.temporal.start_workflow(
        Sweep.run,
        SweepInput(parts=(SweepPart.TURNS,)),
        id=f"sweep-{uuid4()}",
        task_queue=BACKGROUND_QUEUE,
        memo=sweep_memo(PUBLIC_URL),
    )


async def sweep(stack: Stack) -> None:
    async with asyncio.timeout(30):
        await (await start_sweep(stack)).result()


async def store_turn(user: ApiUser, stack: Stack, chat: str, question: str) -> str:
    """Accept a message as the API does while Temporal is unavailable."""
    accepted = await stack.services.turns.acceptance.accept(
        acting_user(UserId(UUID(user.id))),
        ChatId(UUID(chat)),
        SendMessageRequest(content=question, if_busy=IfBusy.ENQUEUE),
        key=None,
    )
    assert isinstance(accepted, Ok)
    return str(accepted.value.turn.id)


async def test_a_turn_that_was_never_started_is_started(user: ApiUser, stack: Stack) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Late, but here."))
    chat = await user.create_chat()
    turn_id = await store_turn(user, stack, chat, question)
    await stack.inspection.age(turn_id, by=OLD)

    await sweep(stack)

    events = await user.events(turn_id)
    await user.check_whole(chat, events)
    assert rebuild(events) == "Late, but here."
    described = await stack.temporal.get_workflow_handle(f"turn-{turn_id}").describe()
    view = f"{PUBLIC_URL}/api/v1/admin/turns/{turn_id}"
    assert await described.memo_value("adminView", type_hint=str) == view


async def test_a_turn_that_cant_be_looked_at_holds_up_no_other(
    user: ApiUser, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Here."))
    bad = await store_turn(user, stack, await user.create_chat(), unique())
    good = await store_turn(user, stack, chat := await user.create_chat(), question)
    for number, turn_id in enumerate((good, bad), start=1):
        # The bad one is the oldest, and so the first to be looked at.
        await stack.inspection.age(turn_id, by=OLD * number)
    looked_at = stack.activities.sweep._need_of

    async def need_of(turn: ActiveTurn) -> object:
        if str(turn.reference.turn_id) == bad:
            raise ValueError
        return await looked_at(turn)

    monkeypatch.setattr(stack.activities.sweep, "_need_of", need_of)

    due = await stack.activities.sweep.parts_due()
    await sweep(stack)

    assert SweepPart.TURNS in due
    await user.check_whole(chat, await user.events(good))
    assert (await user.turn(bad))["status"] == "queued"
    await user.cancel(bad)


async def test_a_turn_that_is_just_starting_is_left_alone(user: ApiUser, stack: Stack) -> None:
    chat = await user.create_chat()
    turn_id = await store_turn(user, stack, chat, unique())

    await sweep(stack)

    assert (await user.turn(turn_id))["status"] == "queued"
    await user.cancel(turn_id)


async def test_a_turn_whose_workflow_is_gone_is_closed_and_the_next_one_starts(
    user: ApiUser, stack: Stack
) -> None:
    first, second = unique("first"), unique("second")
    stack.model.add(Script(match=first, pieces=("Half", " way"), hold=first, hold_after=1))
    stack.model.add(Script(match=second, text="My turn."))
    chat = await user.create_chat()

    async with user.stream(chat, first) as stream:
        await stream.until_text("Half")
        waiting = await store_turn(user, stack, chat, second)
        await stack.temporal.get_workflow_handle(f"turn-{stream.turn_id}").terminate()
        await stack.inspection.age(stream.turn_id, by=OLD)
        await sweep(stack)
        events = await stream.all()

    await user.check_whole(chat, events)
    assert events[-1].data["status"] == "failed"
    assert [event.data["code"] for event in named(events, "error")] == ["SERVICE_UNAVAILABLE"]
    following = await user.events(waiting)
    await user.check_whole(chat, following)
    assert rebuild(following) == "My turn."
    abandoned = stack.model.requests_matching(first)[0]
    await stack.model.wait_until(lambda: abandoned.disconnected_at is not None)


def has_heard_of_a_failure(swept: WorkflowHistory) -> bool:
    types = [event.event_type for event in swept.events]
    failed = EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_FAILED
    return failed in types and (
        EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED in types[types.index(failed) :]
    )


async def test_a_turn_that_fails_while_its_sweep_goes_on_is_none_of_the_sweeps_errors(
    user: ApiUser, stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    held, refused = unique("held"), unique("refused")
    stack.model.add(Script(match=held, pieces=("Half", " way"), hold=held, hold_after=1))
    stack.model.add(Script(match=refused, status=400))
    failing = await store_turn(user, stack, await user.create_chat(), refused)
    async with user.stream(await user.create_chat(), held) as stream:
        await stream.until_text("Half")
        await stack.temporal.get_workflow_handle(f"turn-{stream.turn_id}").terminate()
        for turn_id in (failing, stream.turn_id):
            await stack.inspection.age(turn_id, by=OLD)

        # Closing this turn lasts until the other one has failed.
        async with stack.inspection.locked("turns", UUID(stream.turn_id)):
            sweeping = await start_sweep(stack)
            await eventually(sweeping.fetch_history, has_heard_of_a_failure)
            # What its workflow has dropped is looked at while it still runs.
            gc.collect()
        await sweeping.result()
        await stream.all()

    assert (await user.turn(failing))["status"] == "failed"
    assert "never retrieved" not in caplog.text


async def test_turns_behind_more_than_a_page_of_others_are_found(
    user: ApiUser, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.turns.stranded._BATCH", 1)
    questions = [unique() for _ in range(3)]
    for question in questions:
        stack.model.add(
            Script(match=question, pieces=("Half", " way"), hold=question, hold_after=1)
        )
    async with AsyncExitStack() as opened:
        streams = [
            await opened.enter_async_context(user.stream(await user.create_chat(), question))
            for question in questions
        ]
        for stream in streams:
            await stream.until_text("Half")
            await stack.inspection.age(stream.turn_id, by=OLD)
        gone = streams[-1].turn_id
        await stack.temporal.get_workflow_handle(f"turn-{gone}").terminate()

        async def is_due() -> bool:
            return SweepPart.TURNS in await stack.activities.sweep.parts_due()

        await eventually(is_due, bool)
        await sweep(stack)
        events = await streams[-1].all()
        for question in questions:
            stack.model.release(question)
        for stream in streams[:-1]:
            await stream.all()

    assert events[-1].data["status"] == "failed"
    assert [(await user.turn(stream.turn_id))["status"] for stream in streams[:-1]] == (
        ["completed"] * 2
    )


async def test_turns_queued_in_an_idle_chat_are_started(user: ApiUser, stack: Stack) -> None:
    first, second, third = unique("first"), unique("second"), unique("third")
    stack.model.add(Script(match=second, text="Second."))
    stack.model.add(Script(match=third, text="Third."))
    chat = await user.create_chat()
    turns = [await store_turn(user, stack, chat, text) for text in (first, second, third)]
    for turn_id in turns:
        await stack.inspection.age(turn_id, by=OLD)
    await stack.inspection.execute(
        "UPDATE turns SET active = false, status = 'cancelled' WHERE id = $1", UUID(turns[0])
    )

    await sweep(stack)

    for turn_id in turns[1:]:
        await user.check_whole(chat, await user.events(turn_id))
    answers = [m["content"] for m in await user.messages(chat) if m["role"] == "assistant"]
    assert answers == ["Second.", "Third."]


async def test_a_cancellation_that_did_not_reach_temporal_is_passed_on(
    user: ApiUser, stack: Stack
) -> None:
    question = unique()
    stack.model.add(Script(match=question, pieces=("On and", " on"), hold=question, hold_after=1))
    chat = await user.create_chat()

    async with user.stream(chat, question) as stream:
        await stream.until_text("On and")
        await stack.inspection.execute(
            "UPDATE turns SET cancel_requested_at = now() WHERE id = $1", UUID(stream.turn_id)
        )
        await stack.inspection.age(stream.turn_id, by=OLD)
        await sweep(stack)
        events = await stream.all()

    await user.check_whole(chat, events)
    assert events[-1].data["status"] == "cancelled"


async def test_a_turn_stopped_before_it_started_ends_once(user: ApiUser, stack: Stack) -> None:
    chat = await user.create_chat()
    turn_id = await store_turn(user, stack, chat, unique())

    cancelled = await user.cancel(turn_id)
    await stack.inspection.age(turn_id, by=OLD)
    await sweep(stack)

    assert cancelled["status"] == "cancelled"
    await user.check_whole(chat, await user.events(turn_id))


async def test_calls_that_nobody_makes_any_more_reserve_nothing(
    user: ApiUser, stack: Stack
) -> None:
    """A chat deleted in mid-call, and its worker killed; or an extraction that was terminated."""
    now = utc_now()
    dead, recent = now - timedelta(minutes=21), now - timedelta(minutes=19)
    chat = await user.create_chat()
    running = UUID(await store_turn(user, stack, chat, unique()))
    await charge(stack.inspection, user.id, at=dead, cost_usd="0.1", status="open")
    await charge(stack.inspection, user.id, at=recent, cost_usd="0.2", status="open")
    await charge(stack.inspection, user.id, at=dead, cost_usd="0.3", status="open", turn_id=running)
    await stack.inspection.execute(
        "UPDATE ledger SET reserved_usd = 5 WHERE user_id = $1", UUID(user.id)
    )

    await sweep(stack)

    rows = await stack.inspection.rows(
        "SELECT cost_usd, status, charged_usd FROM ledger WHERE user_id = $1 ORDER BY cost_usd",
        UUID(user.id),
    )
    assert [
        (str(row["cost_usd"]).rstrip("0"), row["status"], row["charged_usd"]) for row in rows
    ] == [
        ("0.1", "lost", Decimal("0.1")),
        ("0.2", "open", 5),
        ("0.3", "open", 5),
    ]
    await user.cancel(str(running))
