"""One turn at a time in a chat, and one turn for one idempotency key."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.fakes.scripted_model.scripts import Script
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.charges import check_charges
from tests.fixtures.event_stream import named
from tests.fixtures.stack import Stack


async def test_a_second_message_while_a_turn_runs_is_refused(user: ApiUser, stack: Stack) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Yes.", hold=question))
    chat = await user.create_chat()

    async with user.stream(chat, question) as stream:
        refused = await user.post(chat, "And this?")
        stack.model.release(question)
        await stream.all()

    assert refused.status_code == 409
    assert refused.json()["error"]["code"] == "TURN_IN_PROGRESS"
    assert refused.json()["error"]["retryable"] is True
    assert len(await user.messages(chat)) == 2


async def test_chats_of_one_user_run_side_by_side(user: ApiUser, stack: Stack) -> None:
    first, second = unique(), unique()
    stack.model.add(Script(match=first, text="First.", hold=first))
    stack.model.add(Script(match=second, text="Second."))
    chat, other_chat = await user.create_chat(), await user.create_chat()

    async with user.stream(chat, first) as stream:
        data = await user.ask(other_chat, second)
        stack.model.release(first)
        await user.check_whole(chat, await stream.all())

    assert data["assistantMessage"]["content"] == "Second."


async def test_queued_messages_are_answered_in_their_order(user: ApiUser, stack: Stack) -> None:
    first, second, third = unique("first"), unique("second"), unique("third")
    stack.model.add(Script(match=first, text="Answer 1.", hold=first))
    stack.model.add(Script(match=second, text="Answer 2."))
    stack.model.add(Script(match=third, text="Answer 3."))
    chat = await user.create_chat()

    async with AsyncExitStack() as streams:
        running = await streams.enter_async_context(user.stream(chat, first))
        waiting = [
            await streams.enter_async_context(user.stream(chat, question, ifBusy="enqueue"))
            for question in (second, third)
        ]
        stack.model.release(first)
        for stream in (running, *waiting):
            await user.check_whole(chat, await stream.all())

    assert [message["content"] for message in await user.messages(chat)] == [
        *(first, "Answer 1."),
        *(second, "Answer 2."),
        *(third, "Answer 3."),
    ]
    (record,) = stack.model.requests_matching(third)
    assert record.body is not None
    assert [message["content"][0]["text"] for message in record.body["messages"]] == [
        *(first, "Answer 1."),
        *(second, "Answer 2."),
        third,
    ]
    for question, stream in ((second, waiting[0]), (third, waiting[1])):
        await check_charges(stack, stream.turn_id, question)


async def test_a_full_queue_accepts_no_more(tight: Stack) -> None:
    user = await tight.sign_up()
    questions = [unique() for _ in range(3)]
    tight.model.add(Script(match=questions[0], text="1", hold=questions[0]))
    chat = await user.create_chat()

    async with AsyncExitStack() as streams:
        opened = [await streams.enter_async_context(user.stream(chat, questions[0]))]
        await tight.model.wait_for_request(match=questions[0])
        for question in questions[1:]:
            waiting = user.stream(chat, question, ifBusy="enqueue")
            opened.append(await streams.enter_async_context(waiting))
        refused = await user.post(chat, "One too many", ifBusy="enqueue")
        await user.cancel(opened[2].turn_id)
        await user.cancel(opened[1].turn_id)
        await user.cancel(opened[0].turn_id)
        for stream in opened:
            await stream.all()

    assert refused.status_code == 409
    assert refused.json()["error"]["code"] == "CONFLICT"
    assert len(named(opened[0].seen, "done")) == 1


async def test_an_interrupting_message_stops_the_turn_and_replaces_the_queue(
    user: ApiUser, stack: Stack
) -> None:
    first, second, third = unique("first"), unique("second"), unique("third")
    stack.model.add(Script(match=first, pieces=("Half", " way"), hold=first, hold_after=1))
    stack.model.add(Script(match=third, text="At once."))
    chat = await user.create_chat()

    async with AsyncExitStack() as streams:
        running = await streams.enter_async_context(user.stream(chat, first))
        await running.until_text("Half")
        waiting = await streams.enter_async_context(user.stream(chat, second, ifBusy="enqueue"))
        urgent = await streams.enter_async_context(user.stream(chat, third, ifBusy="interrupt"))
        for stream in (running, waiting, urgent):
            await user.check_whole(chat, await stream.all())

    statuses = [stream.seen[-1].data["status"] for stream in (running, waiting, urgent)]
    assert statuses == ["cancelled", "cancelled", "completed"]
    # Nothing of the dropped message was answered, so it goes out with no other either.
    assert stack.model.requests_matching(second) == []
    assert len(stack.model.requests_matching(third)) == 1
    assert (await check_charges(stack, running.turn_id, first))[0]["status"] == "cancelled"


@pytest.mark.parametrize("if_busy", ["reject", "enqueue", "interrupt"])
async def test_an_idle_chat_takes_a_message_at_once(
    user: ApiUser, stack: Stack, if_busy: str
) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Yes."))
    chat = await user.create_chat()

    data = await user.ask(chat, question, ifBusy=if_busy)

    assert data["turn"]["status"] == "completed"


async def test_one_key_gives_one_turn_even_to_requests_at_the_same_time(
    user: ApiUser, stack: Stack
) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Once."))
    chat = await user.create_chat()

    responses = await asyncio.gather(
        *(user.post(chat, question, key="the same") for _ in range(20))
    )

    assert {response.status_code for response in responses} == {200}
    assert len({response.json()["data"]["turn"]["id"] for response in responses}) == 1
    assert len(stack.model.requests_matching(question)) == 1
    assert len(await user.messages(chat)) == 2


async def test_messages_at_the_same_time_start_one_turn(user: ApiUser, stack: Stack) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Once.", hold=question, repeat=10))
    chat = await user.create_chat()

    posts = [asyncio.create_task(user.post(chat, question)) for _ in range(10)]
    _, pending = await asyncio.wait(posts, return_when=asyncio.FIRST_COMPLETED)
    while len(pending) > 1:
        _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
    stack.model.release(question)
    responses = await asyncio.gather(*posts)

    assert sorted(response.status_code for response in responses) == [200] + [409] * 9
    assert len(stack.model.requests_matching(question)) == 1
    stack.model.clear_scripts()


async def test_a_key_used_for_another_message_is_refused(user: ApiUser, stack: Stack) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Once."))
    chat, other_chat = await user.create_chat(), await user.create_chat()
    key = unique("key")
    await user.post(chat, question, key=key)

    refused = [
        await user.post(chat, "Something else", key=key),
        await user.post(chat, question, key=key, model="claude-opus-5-5"),
        await user.post(other_chat, question, key=key),
    ]

    assert [response.status_code for response in refused] == [409] * 3
    assert {response.json()["error"]["code"] for response in refused} == {"IDEMPOTENCY_CONFLICT"}
    assert await user.messages(other_chat) == []


async def test_a_key_belongs_to_its_user(user: ApiUser, other_user: ApiUser, stack: Stack) -> None:
    mine, theirs, key = unique(), unique(), unique("key")
    stack.model.add(Script(match=mine, text="Mine."))
    stack.model.add(Script(match=theirs, text="Theirs."))
    chat, other_chat = await user.create_chat(), await other_user.create_chat()

    one = await user.post(chat, mine, key=key)
    other = await other_user.post(other_chat, theirs, key=key)

    assert (one.status_code, other.status_code) == (200, 200)
    assert one.headers["x-turn-id"] != other.headers["x-turn-id"]


async def test_a_retry_with_the_same_key_streams_the_events_again(
    user: ApiUser, stack: Stack
) -> None:
    question, key = unique(), unique("key")
    stack.model.add(Script(match=question, pieces=("One, ", "two."), hold=question, hold_after=1))
    chat = await user.create_chat()

    async with user.stream(chat, question, key=key) as stream:
        await stream.until_text("One, ")
        async with user.stream(chat, question, key=key) as again:
            await again.until_text("One, ")
            stack.model.release(question)
            during = await again.all()
        events = await stream.all()
    async with user.stream(chat, question, key=key) as late:
        after = await late.all()

    assert during == after
    # The first request was answered at once: the turn is queued.
    assert events[1:] == after
    await user.check_whole(chat, after)
    assert len(stack.model.requests_matching(question)) == 1


async def test_a_key_sent_again_without_a_stream_waits_for_the_same_answer(
    user: ApiUser, stack: Stack
) -> None:
    question, key = unique(), unique("key")
    stack.model.add(Script(match=question, text="The one.", hold=question))
    chat = await user.create_chat()

    async with user.stream(chat, question, key=key) as stream:
        again = asyncio.create_task(user.post(chat, question, key=key))
        await stack.model.wait_for_request(match=question)
        stack.model.release(question)
        await stream.all()
        response = await again

    assert response.json()["data"]["assistantMessage"]["content"] == "The one."
    assert response.json()["data"]["turn"]["id"] == stream.turn_id
