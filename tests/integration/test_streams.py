"""The event stream: cut anywhere, resumed anywhere, and always the stored message in the end."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import pytest

from schema.events import DeltaEvent, EventData, StepEvent
from schema.ids import TurnId
from services.events.writer import (
    Appended,
    EventWriter,
    NotAppended,
    channel_name,
    fence_key,
    stream_key,
)
from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.event_stream import Event, named, rebuild, turn_id_of
from tests.fixtures.stack import Stack


def turn_with_tools(stack: Stack, *, delay_s: float = 0.0) -> str:
    """Script a turn of three steps, one of which needs a second attempt; return its question."""
    question = unique()
    calls = (
        ToolCall(name="calculator", input={"expression": "12 * 34"}),
        ToolCall(name="datetime", input={"operation": "now", "timezone": "UTC"}),
    )
    for script in (
        Script(thinking="Two tools will do.", pieces=("Let me ", "see. "), tool_calls=calls),
        Script(thinking="This is lost.", pieces=("This is ", "lost"), break_after=1),
        Script(thinking="One more.", pieces=("Nearly ", "there. "), tool_calls=calls[:1]),
        Script(pieces=("It ", "is ", "408 \U0001f642")),
    ):
        stack.model.add(script.model_copy(update={"match": question, "delay_between_s": delay_s}))
    return question


ANSWER = "Let me see. Nearly there. It is 408 \U0001f642"


async def forget(stack: Stack, turn_id: str) -> None:
    """Let Redis lose a turn's stream, as by a restart."""
    known = TurnId(UUID(turn_id))
    await stack.foundation.redis.delete(stream_key(known), fence_key(known))


async def test_a_stream_can_be_resumed_after_each_of_its_events(
    user: ApiUser, stack: Stack
) -> None:
    chat = await user.create_chat()
    events = await user.events_of(chat, turn_with_tools(stack))
    turn_id = events[0].data["turnId"]
    assert rebuild(events) == ANSWER

    for number, event in enumerate(events[1:], start=2):
        resumed = await user.events(turn_id, after=event.id)
        assert events[:number] + resumed == events, event

    # An id from before the stream is not in it: everything is sent.
    assert await user.events(turn_id, after=events[0].id) == events[1:]
    await user.check_whole(chat, events)


async def test_an_unrelated_message_does_not_end_a_stream(user: ApiUser, stack: Stack) -> None:
    chat = await user.create_chat()

    async with user.stream(chat, turn_with_tools(stack, delay_s=0.02)) as stream:
        await stream.until_named("step")
        channel = channel_name(TurnId(UUID(stream.turn_id)))
        for garbage in (b"", b"garbage", b"1-1\nnone\n{}", b"x\ndelta\n{}", b"\xff\n\xff\n"):
            await stack.foundation.redis.publish(channel, garbage)
        seen = await stream.all()

    await user.check_whole(chat, seen)
    assert rebuild(seen) == ANSWER
    assert stack.services.turns.feed._hub.is_connected


async def test_an_event_that_only_a_newer_worker_knows_is_passed_on(
    user: ApiUser, stack: Stack
) -> None:
    question = unique()
    stack.model.add(Script(match=question, pieces=("Half", " way"), hold=question, hold_after=1))
    async with user.stream(await user.create_chat(), question) as stream:
        half = await stream.until_text("Half")
        moment, _, number = half.id.partition("-")
        channel = channel_name(TurnId(UUID(stream.turn_id)))
        novelty = f'{moment}-{int(number) + 1}\nnovelty\n{{"step":1}}'
        await stack.foundation.redis.publish(channel, novelty)
        assert (await stream.until_named("novelty")).data == {"step": 1}
        stack.model.release(question)
        assert rebuild(await stream.all()) == "Half way"


async def test_a_client_cut_off_after_every_single_event_misses_and_doubles_nothing(
    user: ApiUser, stack: Stack
) -> None:
    chat = await user.create_chat()
    seen: list[Event] = []
    async with user.stream(chat, turn_with_tools(stack, delay_s=0.02)) as stream:
        await stream.until_named("step")
        seen += stream.seen
    while seen[-1].name != "done":
        async with user.follow(stream.turn_id, after=seen[-1].id) as stream_again:
            event = await stream_again.next()
            assert event is not None
            seen.append(event)

    await user.check_whole(chat, seen)
    assert rebuild(seen) == ANSWER


async def test_nothing_follows_done(user: ApiUser, stack: Stack) -> None:
    chat = await user.create_chat()
    events = await user.events_of(chat, turn_with_tools(stack))

    assert await user.events(events[0].data["turnId"], after=events[-1].id) == []


async def test_a_turn_that_redis_has_lost_is_streamed_from_the_database(
    user: ApiUser, stack: Stack
) -> None:
    chat = await user.create_chat()
    live = await user.events_of(chat, turn_with_tools(stack))
    turn_id = live[0].data["turnId"]
    await forget(stack, turn_id)

    events = await user.events(turn_id)

    assert await user.events(turn_id) == events
    await user.check_whole(chat, events)
    assert rebuild(events) == ANSWER
    # The database knows the failed attempt's cost too.
    assert len(named(events, "usage")) == 4
    for number, event in enumerate(events, start=1):
        assert await user.events(turn_id, after=event.id) == events[number:], event


async def test_a_client_with_part_of_a_lost_stream_gets_all_of_it(
    user: ApiUser, stack: Stack
) -> None:
    chat = await user.create_chat()
    live = await user.events_of(chat, turn_with_tools(stack))
    turn_id = live[0].data["turnId"]
    await forget(stack, turn_id)

    for number, event in enumerate(live[:-1], start=1):
        seen = live[:number] + await user.events(turn_id, after=event.id)
        await user.check_whole(chat, seen)
    assert await user.events(turn_id, after=live[-1].id) == []


@pytest.mark.parametrize("given_up", [{DeltaEvent}, {StepEvent, DeltaEvent}])
async def test_a_text_that_redis_did_not_take_comes_from_the_database(
    user: ApiUser, stack: Stack, monkeypatch: pytest.MonkeyPatch, given_up: set[type]
) -> None:
    """Redis fails until the last of an answer's text has been given up, and is back for `done`."""
    append = EventWriter.append_attempt

    async def failing(
        writer: EventWriter,
        turn_id: TurnId,
        events: Sequence[EventData],
        **options: Any,  # noqa: ANN401 -- passed on
    ) -> Appended | NotAppended:
        if given_up & set(map(type, events)):
            return NotAppended.LOST
        return await append(writer, turn_id, events, **options)

    monkeypatch.setattr(EventWriter, "append_attempt", failing)
    chat = await user.create_chat()

    seen = await user.events_of(chat, turn_with_tools(stack))

    await user.check_whole(chat, seen)
    assert rebuild(seen) == ANSWER
    assert await user.events(turn_id_of(seen), after=seen[-1].id) == []
    later = await user.events(turn_id_of(seen))
    assert rebuild(later) == ANSWER


@pytest.mark.parametrize("lost", ["the turn's keys", "everything"])
async def test_a_stream_lost_in_mid_turn_is_sent_again(
    user: ApiUser, stack: Stack, lost: str
) -> None:
    question = unique()
    pieces = ("One, ", "two, ", "three.")
    stack.model.add(Script(match=question, pieces=pieces, hold=question, hold_after=2))
    chat = await user.create_chat()

    async with AsyncExitStack() as streams:
        first = await streams.enter_async_context(user.stream(chat, question))
        await first.until_text("One, two, ")
        if lost == "everything":
            await stack.foundation.redis.flushdb()
        else:
            await forget(stack, first.turn_id)
        late = await streams.enter_async_context(user.follow(first.turn_id))
        resumed = await streams.enter_async_context(
            user.follow(first.turn_id, after=first.seen[-1].id)
        )
        await late.until_named("turn")
        await resumed.until_named("turn")
        stack.model.release(question)
        for stream in (first, late, resumed):
            await user.check_whole(chat, await stream.all())

    assert rebuild(first.seen) == "One, two, three."
    again = await user.events(first.turn_id)
    await user.check_whole(chat, again)


async def test_a_loss_between_steps_loses_nothing_of_the_answer(
    user: ApiUser, stack: Stack
) -> None:
    question = unique()
    call = ToolCall(name="calculator", input={"expression": "6 * 7"})
    stack.model.add(Script(match=question, text="A moment. ", tool_calls=(call,)))
    stack.model.add(Script(match=question, text="It is 42.", hold=question))
    chat = await user.create_chat()

    async with user.stream(chat, question) as stream:
        await stack.model.wait_for_request(2, match=question)
        await stream.until(lambda event: event.name == "step" and event.data["step"] == 2)
        await forget(stack, stream.turn_id)
        stack.model.release(question)
        events = await stream.all()

    await user.check_whole(chat, events)
    assert rebuild(events) == "A moment. It is 42."
    await user.check_whole(chat, await user.events(stream.turn_id))


@pytest.mark.parametrize(
    "event_id",
    ["nonsense", "1", "-", "1-", "1-2-3", "-1-2", "9999999999999-0", "\u0661-\u0662"],
)
async def test_an_invalid_or_future_id_is_rejected(
    user: ApiUser, stack: Stack, event_id: str
) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Yes."))
    chat = await user.create_chat()
    turn_id = (await user.ask(chat, question))["turn"]["id"]

    responses = [await user.request("GET", f"/turns/{turn_id}/events", params={"after": event_id})]
    if event_id.isascii():
        headers = {"Last-Event-ID": event_id}
        responses.append(await user.request("GET", f"/turns/{turn_id}/events", headers=headers))

    for response in responses:
        assert response.status_code == 400, response.text
        assert response.json()["error"]["code"] == "VALIDATION_ERROR"


async def test_an_empty_last_event_id_starts_at_the_beginning(user: ApiUser, stack: Stack) -> None:
    chat = await user.create_chat()
    events = await user.events_of(chat, turn_with_tools(stack))
    path = f"/turns/{turn_id_of(events)}/events"

    whole = await user.request("GET", path)
    empty = await user.request("GET", path, headers={"Last-Event-ID": ""})
    both = await user.request("GET", path, headers={"Last-Event-ID": ""}, params={"after": ""})

    assert (empty.status_code, both.status_code) == (200, 200)
    assert empty.text == both.text == whole.text


async def test_an_id_of_another_turn_is_refused(user: ApiUser, stack: Stack) -> None:
    chat = await user.create_chat()
    one = await user.events_of(chat, turn_with_tools(stack))
    other = await user.events_of(chat, turn_with_tools(stack))

    response = await user.request(
        "GET", f"/turns/{other[0].data['turnId']}/events", headers={"Last-Event-ID": one[3].id}
    )

    assert response.status_code == 400


async def test_the_query_resumes_for_clients_that_cannot_set_headers(
    user: ApiUser, stack: Stack
) -> None:
    chat = await user.create_chat()
    events = await user.events_of(chat, turn_with_tools(stack))
    turn_id = events[0].data["turnId"]

    assert await user.events(turn_id, query=events[4].id) == events[5:]
    # A browser reconnects to the address with the old query, and says in the header where it is.
    assert await user.events(turn_id, query=events[4].id, after=events[6].id) == events[7:]


async def test_many_followers_receive_the_same_events(user: ApiUser, stack: Stack) -> None:
    question = unique()
    pieces = tuple(f"{number} " for number in range(50))
    stack.model.add(Script(match=question, pieces=pieces, hold=question, hold_after=10))
    chat = await user.create_chat()

    async with AsyncExitStack() as streams:
        stream = await streams.enter_async_context(user.stream(chat, question))
        await stream.until_text("".join(pieces[:10]))
        followers = [
            await streams.enter_async_context(user.follow(stream.turn_id)) for _ in range(10)
        ]
        for follower in followers:
            await follower.until_text("".join(pieces[:10]))
        stack.model.release(question)
        heard = await asyncio.gather(*(follower.all() for follower in followers))
        events = await stream.all()

    assert all(each == events[1:] for each in heard)
    await user.check_whole(chat, events)


async def test_a_silent_stream_is_kept_alive_by_comments(tight: Stack) -> None:
    user = await tight.sign_up()
    question, blocker = unique(), unique()
    tight.model.add(Script(match=blocker, delay_to_first_s=0.3, text="Soon.", hold=blocker))
    chat = await user.create_chat()

    async with user.stream(chat, blocker) as running:
        async with user.stream(chat, question, ifBusy="enqueue") as waiting:
            await waiting.until_named("turn")
            for _ in range(3):
                await waiting.comment()
            await user.cancel(waiting.turn_id)
            await user.check_whole(chat, await waiting.all())
        await user.cancel(running.turn_id)
        await running.all()


async def test_the_headers_of_a_stream_keep_proxies_from_holding_it_back(
    user: ApiUser, stack: Stack
) -> None:
    chat = await user.create_chat()
    async with user.stream(chat, turn_with_tools(stack)) as stream:
        headers = stream.response.headers
        await stream.all()

    assert headers["content-type"].startswith("text/event-stream")
    assert "no-store" in headers["cache-control"]
    assert headers["x-accel-buffering"] == "no"
    assert headers["x-turn-id"] == stream.turn_id
    assert stream.comments >= 1


async def test_a_long_input_is_told_once_and_can_be_read_apart(user: ApiUser, stack: Stack) -> None:
    question = unique()
    long = {"expression": "1 + " * 2_500 + "1"}
    call = ToolCall(name="calculator", input=long)
    stack.model.add(Script(match=question, text="A moment. ", tool_calls=(call,)))
    stack.model.add(Script(match=question, text="Too long."))
    chat = await user.create_chat()

    events = await user.events_of(chat, question)
    turn_id = turn_id_of(events)
    await forget(stack, turn_id)
    stored = await user.events(turn_id)

    first, *later = named(events, "tool_call")
    assert later
    assert (first.data["input"], "inputBytes" in first.data) == (long, False)
    assert all("input" not in event.data for event in later)
    assert {event.data["inputBytes"] for event in later} == {10_019}
    assert [event.data["input"] for event in named(stored, "tool_call")] == [long]
    found = await user.request("GET", f"/turns/{turn_id}/tool-calls/{first.data['toolCallId']}")
    assert found.json()["data"]["input"] == long
    assert (await user.request("GET", f"/turns/{turn_id}/tool-calls/none")).status_code == 404
