"""A message that steers a running turn joins it before its next model call, or is the next turn."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID

import pytest

from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.event_stream import Event, EventStream, named
from tests.fixtures.gate_tool import GATE_TOOL
from tests.fixtures.stack import Stack

Row = dict[str, Any]


def shape(stack: Stack, match: str) -> list[tuple[str, list[str]]]:
    """Return the newest prompt for a text: roles, and the text or the type of each block."""
    body = stack.model.requests_matching(match)[-1].body
    assert body is not None
    return [
        (message["role"], [block.get("text", block["type"]) for block in message["content"]])
        for message in body["messages"]
    ]


@asynccontextmanager
async def waiting_in_a_tool(
    user: ApiUser, stack: Stack, chat: str, **body: str
) -> AsyncIterator[tuple[str, EventStream]]:
    """A turn whose first step has ended, while its tool runs: yields its question and stream."""
    question = unique("question")
    gate = ToolCall(name=GATE_TOOL, input={"gate": question})
    stack.model.add(Script(match=question, pieces=("Looking. ",), tool_calls=(gate,)))
    async with user.stream(chat, question, **body) as stream:
        await stack.gate_tool.reached(question)
        try:
            yield question, stream
        finally:
            stack.gate_tool.open(question)


async def waits(user: ApiUser, stack: Stack, text: str, *, count: int = 1) -> None:
    """Return when the user has so many messages with a text."""
    async with asyncio.timeout(20):
        while True:
            stored = await stack.inspection.value(
                "SELECT count(*) FROM messages WHERE content = $1 AND user_id = $2::uuid",
                text,
                user.id,
            )
            if stored >= count:
                return
            await asyncio.sleep(0.01)


async def test_a_message_joins_the_running_turn_before_its_next_model_call(
    user: ApiUser, stack: Stack
) -> None:
    chat, steer, key = await user.create_chat(), unique("steer"), unique("key")
    stack.model.add(Script(match=steer, text="As you wish."))
    async with waiting_in_a_tool(user, stack, chat) as (question, stream):
        async with user.stream(chat, steer, key=key, ifBusy="steer") as sent:
            opening = await sent.next()
            stack.gate_tool.open(question)
            joined = await sent.all()
        events = await stream.all()
    again = await user.post(chat, steer, key=key, ifBusy="steer")

    assert opening is not None
    assert (opening.data["status"], opening.data["steers"]) == ("queued", stream.turn_id)
    assert joined[-1].data["joinedTurnId"] == stream.turn_id
    assert joined[-1].data["status"] == "completed"
    await user.check_whole(chat, events)
    assert shape(stack, steer) == [
        ("user", [question]),
        ("assistant", ["Looking. ", "tool_use"]),
        ("user", ["tool_result", steer]),
    ]
    assert len(stack.model.requests_matching(steer)) == 1
    (announced,) = named(events, "message_joined")
    asked, steered, answer = await user.messages(chat)
    assert announced.data == {"step": 2, "messageId": steered["id"], "turnId": sent.turn_id}
    assert events.index(announced) < next(
        index
        for index, event in enumerate(events)
        if event.name == "step" and event.data["step"] == 2
    )
    assert (steered["content"], steered["joinedStep"]) == (steer, 2)
    assert (steered["parentId"], answer["parentId"]) == (asked["id"], steered["id"])
    assert {message["turnId"] for message in (asked, steered, answer)} == {stream.turn_id}
    assert answer["content"] == "Looking. As you wish."
    # A repetition is answered with what has become of it.
    data = again.json()["data"]
    assert (again.status_code, data["turn"]["id"]) == (200, sent.turn_id)
    assert (data["turn"]["steers"], data["turn"]["joinedStep"]) == (stream.turn_id, 2)
    assert (data["userMessage"], data["assistantMessage"]) == (steered, answer)
    assert await user.events(sent.turn_id) == [
        *named(await user.events(sent.turn_id), "turn"),
        *named(await user.events(sent.turn_id), "done"),
    ]


async def test_the_next_turn_and_another_answer_know_what_joined(
    user: ApiUser, stack: Stack
) -> None:
    chat, steer, second, later = (await user.create_chat(), *map(unique, "abc"))
    stack.model.add(Script(match=second, text="Both."))
    async with (
        waiting_in_a_tool(user, stack, chat) as (question, stream),
        user.stream(chat, steer, ifBusy="steer"),
        user.stream(chat, second, ifBusy="steer"),
    ):
        stack.gate_tool.open(question)
        await stream.all()
    stack.model.add(Script(match=later, text="Later."))
    await user.ask(chat, later)

    assert shape(stack, second)[-1] == ("user", ["tool_result", steer, second])
    assert shape(stack, later) == [
        ("user", [question]),
        ("assistant", ["Looking. ", "tool_use"]),
        ("user", ["tool_result", steer, second]),
        ("assistant", ["Both."]),
        ("user", [later]),
    ]

    stack.model.add(Script(match=second, text="Otherwise."))
    response = await user.request("POST", f"/turns/{stream.turn_id}/regenerate", json={})

    assert shape(stack, second) == [("user", [question, steer, second])]
    branch = await user.messages(chat)
    assert [message["content"] for message in branch] == [question, steer, second, "Otherwise."]
    assert response.json()["data"]["assistantMessage"] == branch[-1]


async def test_what_comes_in_the_last_model_call_is_the_next_turn_in_its_order(
    user: ApiUser, stack: Stack
) -> None:
    chat, first, queued, steer = (await user.create_chat(), *map(unique, "abc"))
    stack.model.add(Script(match=first, pieces=("Al", "most."), hold=first, hold_after=1))
    for text in (queued, steer):
        stack.model.add(Script(match=text, text=f"To {text}."))
    async with AsyncExitStack() as streams:
        running = await streams.enter_async_context(user.stream(chat, first))
        await running.until_text("Al")
        others = [
            await streams.enter_async_context(user.stream(chat, queued, ifBusy="enqueue")),
            await streams.enter_async_context(user.stream(chat, steer, ifBusy="steer")),
        ]
        stack.model.release(first)
        for stream in (running, *others):
            await user.check_whole(chat, await stream.all())

    assert [message["content"] for message in await user.messages(chat)] == [
        *(first, "Almost.", queued, f"To {queued}.", steer, f"To {steer}.")
    ]
    assert shape(stack, steer)[-1] == ("user", [steer])
    turn = await user.turn(others[1].turn_id)
    assert (turn["steers"], turn["joinedStep"]) == (running.turn_id, None)


async def test_a_steering_message_overtakes_queued_ones(user: ApiUser, stack: Stack) -> None:
    chat, queued, steer, last = (await user.create_chat(), *map(unique, "abc"))
    stack.model.add(Script(match=steer, text="Now."))
    stack.model.add(Script(match=queued, text="Then."))
    stack.model.add(Script(match=last, text="At last."))
    async with waiting_in_a_tool(user, stack, chat) as (question, stream), AsyncExitStack() as sent:
        for text, if_busy in ((queued, "enqueue"), (steer, "steer"), (last, "enqueue")):
            await sent.enter_async_context(user.stream(chat, text, ifBusy=if_busy))
        placed = await user.messages(chat)
        stack.gate_tool.open(question)
        await user.check_whole(chat, await stream.all())
        await waits(user, stack, "At last.")

    assert [message["content"] for message in placed] == [question, queued, steer, last]
    messages = await user.messages(chat)
    assert [message["content"] for message in messages] == [
        *(question, steer, "Looking. Now.", queued, "Then.", last, "At last.")
    ]
    assert [message["parentId"] for message in messages[1:]] == [
        message["id"] for message in messages[:-1]
    ]


@pytest.mark.parametrize("how", ["cancel", "interrupt", "fail"])
async def test_a_turn_that_ends_otherwise_leaves_its_steering_message_to_the_next(
    user: ApiUser, stack: Stack, how: str
) -> None:
    chat, first, steer = (await user.create_chat(), *map(unique, "ab"))
    refuses = {"status": 400} if how == "fail" else {}
    stack.model.add(Script(match=first, text="Never.", hold=first, delay_to_first_s=0.5, **refuses))
    stack.model.add(Script(match=steer, text="Answered."))
    async with AsyncExitStack() as streams:
        running = await streams.enter_async_context(user.stream(chat, first))
        await stack.model.wait_for_request(match=first)
        waiting = await streams.enter_async_context(user.stream(chat, steer, ifBusy="steer"))
        if how == "cancel":
            await user.cancel(running.turn_id)
        elif how == "interrupt":
            urgent = unique("urgent")
            stack.model.add(Script(match=urgent, text="At once."))
            await user.ask(chat, urgent, ifBusy="interrupt")
        ended, events = await running.all(), await waiting.all()

    await user.check_whole(chat, events)
    assert named(ended, "message_joined") == []
    # An interrupting message replaces what waits, as it does with queued messages.
    expected = "cancelled" if how == "interrupt" else "completed"
    assert events[-1].data["status"] == expected
    assert len(stack.model.requests_matching(steer)) == (how != "interrupt")


async def test_a_steering_message_that_was_withdrawn_joins_nothing(
    user: ApiUser, stack: Stack
) -> None:
    chat, steer = await user.create_chat(), unique("steer")
    async with waiting_in_a_tool(user, stack, chat) as (question, stream):
        stack.model.add(Script(match=question, text="Done."))
        async with user.stream(chat, steer, ifBusy="steer") as sent:
            withdrawn = await user.cancel(sent.turn_id)
            stack.gate_tool.open(question)
            events, others = await stream.all(), await sent.all()

    assert withdrawn["status"] == "cancelled"
    assert others[-1].data["status"] == "cancelled"
    assert named(events, "message_joined") == []
    assert stack.model.requests_matching(steer) == []


async def test_a_message_with_wishes_of_its_own_is_queued(user: ApiUser, stack: Stack) -> None:
    chat, other, elsewhere, steer = (await user.create_chat(), *map(unique, "abc"))
    for text in (other, elsewhere, steer):
        stack.model.add(Script(match=text, text=f"To {text}."))
    async with waiting_in_a_tool(user, stack, chat) as (question, stream):
        asked = (await user.messages(chat))[0]
        stack.model.add(Script(match=question, text="Done."))
        async with AsyncExitStack() as streams:
            sent = [
                await streams.enter_async_context(user.stream(chat, *args, ifBusy="steer", **body))
                for args, body in (
                    ((other,), {"model": "claude-opus-5-5"}),
                    ((elsewhere,), {"parentId": None}),
                    ((steer,), {"parentId": asked["id"]}),
                )
            ]
            openings = [await each.next() for each in sent]
            stack.gate_tool.open(question)
            for each in (stream, *sent):
                await each.all()

    assert [opening and opening.data.get("steers") for opening in openings] == [
        *(None, None, stream.turn_id)
    ]
    assert shape(stack, steer)[0] == ("user", [question])
    assert [stream.seen[-1].data.get("joinedTurnId") for stream in sent] == [
        *(None, None, stream.turn_id)
    ]


async def test_a_steering_message_can_be_edited_and_deleted(user: ApiUser, stack: Stack) -> None:
    chat, steer, edit = (await user.create_chat(), *map(unique, "ab"))
    stack.model.add(Script(match=steer, text="So."))
    stack.model.add(Script(match=edit, text="Otherwise."))
    async with (
        waiting_in_a_tool(user, stack, chat) as (question, stream),
        user.stream(chat, steer, ifBusy="steer"),
    ):
        stack.gate_tool.open(question)
        await stream.all()
    asked, steered, answer = await user.messages(chat)

    data = await user.ask(chat, edit, parentId=steered["parentId"])

    assert shape(stack, edit) == [("user", [question, edit])]
    assert data["userMessage"]["joinedStep"] == 0
    assert [message["content"] for message in await user.messages(chat)] == [
        *(question, edit, "Otherwise.")
    ]
    shown = await user.request("GET", f"/messages/{steered['id']}")
    assert shown.json()["data"]["siblingIds"] == [steered["id"], data["userMessage"]["id"]]
    follow_up = unique("follow-up")
    stack.model.add(Script(match=follow_up, text="More."))
    await user.ask(chat, follow_up)
    assert shape(stack, follow_up) == [
        *(("user", [question, edit]), ("assistant", ["Otherwise."]), ("user", [follow_up]))
    ]

    deleted = await user.request("DELETE", f"/messages/{steered['id']}")

    assert deleted.status_code == 204, deleted.text
    assert (await user.request("GET", f"/messages/{answer['id']}")).status_code == 404
    everything = await user.request("GET", f"/chats/{chat}/messages", params={"branch": "all"})
    assert asked["id"] in {message["id"] for message in everything.json()["data"]}
    assert (await user.turn(stream.turn_id))["assistantMessageId"] is None
    stack.model.add(Script(match=question, text="Again."))
    again = await user.request("POST", f"/turns/{stream.turn_id}/regenerate", json={})
    assert again.json()["data"]["assistantMessage"]["parentId"] == asked["id"]


async def test_files_join_with_their_message(user: ApiUser, stack: Stack) -> None:
    chat, steer = await user.create_chat(), unique("steer")
    note = {"file": ("note.txt", b"The lighthouse is red.", "text/plain")}
    file = (await user.request("POST", "/files", files=note)).json()["data"]["id"]
    stack.model.add(Script(match=steer, text="Red."))
    async with waiting_in_a_tool(user, stack, chat) as (question, stream):
        body = {"content": steer, "ifBusy": "steer", "attachments": [file]}
        sent = asyncio.create_task(user.request("POST", f"/chats/{chat}/messages", json=body))
        await waits(user, stack, steer)
        stack.gate_tool.open(question)
        await stream.all()
        data = (await sent).json()["data"]

    role, blocks = shape(stack, steer)[-1]
    assert (role, blocks[0], blocks[-1]) == ("user", "tool_result", steer)
    assert any("The lighthouse is red." in block for block in blocks)
    assert data["userMessage"]["parts"][0]["fileId"] == file
    assert data["assistantMessage"]["content"] == "Looking. Red."


async def test_a_failed_exchange_with_a_steering_message_is_left_out(
    user: ApiUser, stack: Stack
) -> None:
    chat, question, steer, later = (await user.create_chat(), *map(unique, "abc"))
    gate = ToolCall(name=GATE_TOOL, input={"gate": question})
    stack.model.add(Script(match=question, tool_calls=(gate,)))
    stack.model.add(Script(match=steer, status=400, message="No."))
    async with user.stream(chat, question) as stream:
        await stack.gate_tool.reached(question)
        async with user.stream(chat, steer, ifBusy="steer") as sent:
            stack.gate_tool.open(question)
            events, joined = await stream.all(), await sent.all()
    stack.model.add(Script(match=later, text="Fine."))
    await user.ask(chat, later)

    assert (events[-1].data["status"], joined[-1].data["joinedTurnId"]) == (
        *("failed", stream.turn_id),
    )
    assert shape(stack, later) == [("user", [later])]


async def test_a_stream_from_the_database_has_the_messages_that_joined(
    user: ApiUser, stack: Stack
) -> None:
    chat, steer = await user.create_chat(), unique("steer")
    stack.model.add(Script(match=steer, text="So."))
    async with (
        waiting_in_a_tool(user, stack, chat) as (question, stream),
        user.stream(chat, steer, ifBusy="steer"),
    ):
        stack.gate_tool.open(question)
        events = await stream.all()
    await stack.foundation.redis.delete(f"everturn:{{{stream.turn_id}}}:events")

    late: list[Event] = await user.events(stream.turn_id)

    for name in ("message_joined", "done"):
        assert [event.data for event in named(late, name)] == [
            event.data for event in named(events, name)
        ]
    order = [event.name for event in late if event.name in {"step", "message_joined"}]
    assert order == ["step", "message_joined", "step"]
    await user.check_whole(chat, late)


async def test_a_steering_message_with_an_idle_chat_is_answered_at_once(
    user: ApiUser, stack: Stack
) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Yes."))
    chat = await user.create_chat()

    data = await user.ask(chat, question, ifBusy="steer")

    assert (data["turn"]["status"], data["turn"]["steers"]) == ("completed", None)


async def test_charges_of_a_steered_turn_are_as_counted(user: ApiUser, stack: Stack) -> None:
    chat, steer = await user.create_chat(), unique("steer")
    stack.model.add(Script(match=steer, text="So."))
    async with (
        waiting_in_a_tool(user, stack, chat) as (question, stream),
        user.stream(chat, steer, ifBusy="steer") as sent,
    ):
        stack.gate_tool.open(question)
        await stream.all()
        await sent.all()
    charges = await stack.inspection.rows(
        "SELECT step, status FROM ledger WHERE turn_id = $1 AND kind = 'model' ORDER BY step",
        UUID(stream.turn_id),
    )

    assert [tuple(charge.values()) for charge in charges] == [(1, "settled"), (2, "settled")]
    assert (
        await stack.inspection.rows("SELECT FROM ledger WHERE turn_id = $1", UUID(sent.turn_id))
        == []
    )
