"""The API, Redis, Postgres or Temporal is down for a while: turns finish, streams end whole."""

import asyncio

import httpx2
import psutil

from everturn_client.user_events import ChatChangedEvent, TurnChangedEvent
from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.running_everturn.checks import assert_paid_for, assert_stream_is_whole
from tests.running_everturn.client import Client, names
from tests.running_everturn.stack import ScriptedStack

SUM = ToolCall(name="calculator", input={"expression": "6 * 7"})


async def test_a_client_misses_nothing_when_the_api_is_killed(
    everturn: ScriptedStack, client: Client
) -> None:
    everturn.model.add(
        Script(match="api", pieces=("One, ", "two, ", "three."), hold="api", hold_after=2)
    )

    async with client.ask("the api dies") as stream:
        await stream.until_text("One, two, ")
        everturn.stack.kill("api")
        seen = await stream.until_broken()
    everturn.model.release("api")
    await everturn.stack.wait_ready("api")
    rest = await client.events(stream.turn_id, after=stream.last_id)

    assert names(rest) == ["delta", "usage", "done"]
    answer = await assert_stream_is_whole(client, stream.turn_id, [*seen, *rest])
    assert answer == "One, two, three."
    await assert_paid_for(everturn, stream.turn_id, "the api dies")


async def test_a_side_bar_misses_nothing_when_the_api_is_killed(
    everturn: ScriptedStack, client: Client
) -> None:
    everturn.model.add(Script(match="side bar", pieces=("One, ", "two."), hold="bar", hold_after=1))
    async with client.api.users.events() as stream:
        events = aiter(stream)
        assert (await anext(events)).type == "resync"
        async with client.ask("a side bar") as answer:
            await answer.until_text("One, ")
            seen = [await anext(events), await anext(events)]
            everturn.stack.kill("api")
            await answer.until_broken()
        # It ends while no one listens.
        everturn.model.release("bar")
        async with asyncio.timeout(60):
            while getattr(seen[-1], "status", None) != "completed":
                seen.append(await anext(events))

    turns = [event for event in seen if isinstance(event, TurnChangedEvent)]
    assert [event.status for event in turns] == ["running", "completed"]
    assert {event.turn_id for event in turns} == {answer.turn_id}
    assert "resync" not in {event.type for event in seen}
    assert len({event.id for event in seen}) == len(seen)


async def test_a_side_bar_reads_its_lists_when_redis_has_lost_events(
    everturn: ScriptedStack, client: Client
) -> None:
    async with client.api.users.events() as stream:
        events = aiter(stream)
        assert (await anext(events)).type == "resync"
        one = await client.api.chats.create(title="One")
        created = await anext(events)
        assert isinstance(created, ChatChangedEvent)
        everturn.stack.kill("valkey")
        await everturn.stack.wait_ready("valkey")
        async with asyncio.timeout(60):
            lost = await anext(events)
            two = await client.api.chats.create(title="Two")
            heard = await anext(events)

    assert (created.chat_id, lost.type) == (one.id, "resync")
    assert isinstance(heard, ChatChangedEvent)
    assert heard.chat_id == two.id


async def test_a_stream_continues_from_the_database_when_redis_stops(
    everturn: ScriptedStack, client: Client
) -> None:
    everturn.model.add(
        Script(match="redis", pieces=("One, ", "two, ", "three."), hold="redis", hold_after=2)
    )

    async with client.ask("redis stops") as stream:
        await stream.until_text("One, two, ")
        await everturn.stack.stop("valkey")
        everturn.model.release("redis")
        events = await stream.to_end()

    answer = await assert_stream_is_whole(client, stream.turn_id, events)
    assert answer == "One, two, three."
    await everturn.stack.start("valkey")
    assert await assert_stream_is_whole(client, stream.turn_id, events) == answer
    await assert_paid_for(everturn, stream.turn_id, "redis stops")


async def test_a_turn_runs_and_streams_without_redis(
    everturn: ScriptedStack, client: Client
) -> None:
    everturn.model.add(Script(match="no redis", text="Let me see. ", tool_calls=(SUM,)))
    everturn.model.add(Script(match="no redis", pieces=("It ", "is ", "42.")))
    await everturn.stack.stop("valkey")

    async with client.ask("no redis at all") as stream:
        events = await stream.to_end()

    assert await assert_stream_is_whole(client, stream.turn_id, events) == "Let me see. It is 42."
    (call,) = (e for e in events if e.name == "tool_call" and e.status == "completed")
    assert call.data["output"] == "42"
    await assert_paid_for(everturn, stream.turn_id, "no redis at all")


async def test_text_lost_in_a_redis_restart_is_published_again(
    everturn: ScriptedStack, client: Client
) -> None:
    everturn.model.add(
        Script(match="empty", pieces=("One, ", "two, ", "three."), hold="empty", hold_after=2)
    )

    async with client.ask("redis comes back empty") as stream:
        await stream.until_text("One, two, ")
        everturn.stack.kill("valkey")
        await everturn.stack.wait_ready("valkey")
        everturn.model.release("empty")
        events = await stream.to_end()

    assert await assert_stream_is_whole(client, stream.turn_id, events) == "One, two, three."
    await assert_paid_for(everturn, stream.turn_id, "redis comes back empty")


async def test_an_answer_that_postgres_could_not_take_waits_for_it(
    everturn: ScriptedStack, client: Client
) -> None:
    everturn.model.add(Script(match="postgres", pieces=("One, ", "two."), hold="pg", hold_after=1))

    async with client.ask("postgres stops") as stream:
        await stream.until_text("One, ")
        await everturn.stack.stop("postgres")
        refused = await client.request("GET", "/chats")
        everturn.model.release("pg")
        await everturn.model.wait_for_request(match="postgres", ended=True)
        await stream.until_text("One, two.")
        still_refused = await client.request("GET", "/chats")
        await everturn.stack.start("postgres")
        events = await stream.to_end()

    for response in (refused, still_refused):
        assert response.status_code == httpx2.codes.SERVICE_UNAVAILABLE
        assert response.json()["error"]["code"] == "SERVICE_UNAVAILABLE"
        assert int(response.headers["Retry-After"]) > 0
    assert await assert_stream_is_whole(client, stream.turn_id, events) == "One, two."
    charges = await assert_paid_for(everturn, stream.turn_id, "postgres stops")
    assert [charge["status"] for charge in charges] == ["settled"]


async def test_a_step_between_two_answers_waits_for_postgres(
    everturn: ScriptedStack, client: Client
) -> None:
    """Postgres is killed, not stopped: it comes back by itself, through its recovery."""
    everturn.model.add(Script(match="killed pg", text="Sum: ", tool_calls=(SUM,), hold="tool"))
    everturn.model.add(Script(match="killed pg", text="42."))

    async with client.ask("a killed pg") as stream:
        await everturn.model.wait_for_request(match="killed pg")
        server = psutil.Process(everturn.stack.pid("postgres"))
        everturn.stack.kill("postgres")
        everturn.model.release("tool")
        events = await stream.to_end()

    assert not server.is_running()
    assert await assert_stream_is_whole(client, stream.turn_id, events) == "Sum: 42."
    charges = await assert_paid_for(everturn, stream.turn_id, "a killed pg")
    assert [charge["status"] for charge in charges] == ["settled", "settled"]


async def test_a_message_is_accepted_without_temporal_and_answered_when_it_is_back(
    everturn: ScriptedStack, client: Client
) -> None:
    everturn.model.add(Script(match="no temporal", text="Better late.", repeat=2))
    await everturn.stack.stop("temporal")
    chat_id = await client.new_chat()

    body = {"content": "no temporal, no stream"}
    accepted = await client.request("POST", f"/chats/{chat_id}/messages", body)
    async with client.ask("no temporal, a stream") as stream:
        queued = await stream.next()
        await everturn.stack.start("temporal")
        events = await stream.to_end()

    assert accepted.status_code == httpx2.codes.ACCEPTED
    turn = accepted.json()["data"]["turn"]
    assert turn["status"] == "queued"
    assert accepted.json()["data"]["assistantMessage"] is None
    assert queued is not None
    assert queued.status == "queued"
    assert await assert_stream_is_whole(client, stream.turn_id, events) == "Better late."
    await assert_paid_for(everturn, stream.turn_id, "no temporal, a stream")
    replayed = await client.events(turn["id"])
    assert await assert_stream_is_whole(client, turn["id"], replayed) == "Better late."
    await assert_paid_for(everturn, turn["id"], "no temporal, no stream")


async def test_a_turn_continues_when_temporal_is_killed(
    everturn: ScriptedStack, client: Client
) -> None:
    everturn.model.add(Script(match="temporal", pieces=("One, ", "two."), hold="t", hold_after=1))

    async with client.ask("temporal dies") as stream:
        await stream.until_text("One, ")
        everturn.stack.kill("temporal")
        everturn.model.release("t")
        await stream.until_text("One, two.")
        await everturn.stack.wait_ready("temporal")
        events = await stream.to_end()

    assert await assert_stream_is_whole(client, stream.turn_id, events) == "One, two."
    await assert_paid_for(everturn, stream.turn_id, "temporal dies")
    temporal = await everturn.temporal()
    handle = temporal.get_workflow_handle(f"turn-{stream.turn_id}")
    outcome = await handle.result()
    assert outcome["status"] == "completed"
