"""Events across chats: in order, to their user alone, resumable, and never missing in silence."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
from redis.asyncio import Redis

from everturn_client import AsyncEverturn
from everturn_client.user_events import ChatChangedEvent, TurnChangedEvent
from schema.events import ChatChange, ResyncEvent, StreamedUserEvent
from schema.events import TurnChangedEvent as Changed
from schema.ids import ChatId, TurnId, UserId, new_id
from schema.turns import TurnStatus
from services.events.hub import EventHub
from services.events.user_feed import UserFeed
from services.events.writer import EventWriter, News, chat_news, user_source
from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.due_works import do_works_after
from tests.fixtures.event_stream import Event, EventStream
from tests.fixtures.redis_proxy import RedisProxy
from tests.fixtures.stack import Stack


@asynccontextmanager
async def following(user: ApiUser, *, after: str | None = None) -> AsyncIterator[EventStream]:
    headers = user.headers if after is None else {**user.headers, "Last-Event-ID": after}
    async with user.http.stream("GET", "/users/me/events", headers=headers) as response:
        if response.status_code != 200:
            await response.aread()
        assert response.status_code == 200, response.text
        yield EventStream(response)


async def first(stream: EventStream) -> Event:
    event = await stream.next()
    assert event is not None
    return event


async def test_a_chats_life_is_announced_in_order(user: ApiUser, stack: Stack) -> None:
    said = unique("said")
    stack.model.add(Script(match=said, text="Take a train."))
    stack.model.add(Script(match=said, text="Trip to Rome"))
    async with following(user) as stream:
        assert (await first(stream)).name == "resync"
        chat = (await user.request("POST", "/chats", json={})).json()["data"]["id"]
        turn = (await user.ask(chat, said))["turn"]["id"]
        await do_works_after(stack, TurnId(UUID(turn)))
        await stream.until(lambda event: event.data.get("title") == "Trip to Rome")
        await user.request("PATCH", f"/chats/{chat}", json={"title": "Rome"})
        await user.request("DELETE", f"/chats/{chat}")
        await stream.until(lambda event: event.data.get("change") == "deleted")

    ids = {"chatId": chat}
    assert [(event.name, event.data) for event in stream.seen] == [
        ("resync", {}),
        ("chat", {**ids, "change": "created"}),
        ("turn", {**ids, "turnId": turn, "status": "running"}),
        ("turn", {**ids, "turnId": turn, "status": "completed"}),
        ("chat", {**ids, "change": "updated", "title": "Trip to Rome"}),
        ("chat", {**ids, "change": "updated", "title": "Rome"}),
        ("chat", {**ids, "change": "deleted"}),
    ]


async def test_a_turn_that_awaits_an_approval_is_announced(user: ApiUser, stack: Stack) -> None:
    chat, said = await user.create_chat(), unique("said")
    await user.request("PUT", "/users/me/preferences", json={"toolApprovals": {"gate": "ask"}})
    stack.model.add(
        Script(match=said, tool_calls=(ToolCall(name="gate", input={"gate": said}, id="toolu_1"),))
    )
    stack.model.add(Script(match=said, text="Done."))
    async with following(user) as stream, user.stream(chat, said) as answer:
        waits = await stream.until(lambda event: event.data.get("status") == "awaiting_approval")
        assert waits.data["turnId"] == answer.turn_id
        decided = await user.request(
            "POST", f"/turns/{answer.turn_id}/approvals/toolu_1", json={"decision": "deny"}
        )
        assert decided.status_code == 200, decided.text
        await stream.until(lambda event: event.data.get("status") == "completed")

    statuses = [event.data["status"] for event in stream.seen if event.name == "turn"]
    assert statuses == ["running", "awaiting_approval", "running", "completed"]


async def test_a_client_that_comes_back_gets_what_it_missed(user: ApiUser) -> None:
    async with following(user) as stream:
        await first(stream)
        one = await user.create_chat("One")
        last = await stream.until(lambda event: event.data.get("chatId") == one)
    two = await user.create_chat("Two")

    async with following(user, after=last.id) as stream:
        missed = await first(stream)
        three = await user.create_chat("Three")
        live = await first(stream)

    assert [missed.data["chatId"], live.data["chatId"]] == [two, three]
    assert missed.id != live.id


async def test_other_users_hear_nothing(user: ApiUser, other_user: ApiUser) -> None:
    async with following(other_user) as stream:
        await first(stream)
        await user.create_chat("Mine")
        own = await other_user.create_chat("Own")
        assert (await first(stream)).data["chatId"] == own


@pytest.mark.parametrize("loss", ["trimmed", "lost", "other server"])
async def test_behind_a_gap_the_lists_are_to_be_read(
    user: ApiUser, stack: Stack, loss: str
) -> None:
    async with following(user) as stream:
        await first(stream)
        await user.create_chat("One")
        last = (await first(stream)).id
    key, redis = user_source(UserId(UUID(user.id))).key, stack.foundation.redis
    if loss == "trimmed":
        await user.create_chat("Two")
        await redis.xtrim(key, maxlen=1, approximate=False)
    elif loss == "lost":
        await redis.delete(key)
    else:
        last = last[:-8] + "0" * 8

    async with following(user, after=last) as stream:
        assert (await first(stream)).name == "resync"
        chat = await user.create_chat("Three")
        assert (await first(stream)).data["chatId"] == chat


@pytest.mark.parametrize("last", ["1-1", "x", "1-1-", "1-1-123456789", "1-1-a\u0660", "-1-1-ab"])
async def test_an_id_that_is_none_is_refused(user: ApiUser, last: str) -> None:
    refused = await user.request("GET", "/users/me/events", params={"after": last})

    assert refused.status_code == 400
    assert refused.json()["error"]["details"][0]["path"] == "query.after"


async def test_users_streams_are_bounded_and_expire(user: ApiUser, stack: Stack) -> None:
    events, user_id = stack.foundation.events, UserId(UUID(user.id))

    for _ in range(1300):
        await events.announce(chat_news(user_id, ChatId(new_id()), ChatChange.DELETED))

    key, redis = user_source(user_id).key, stack.foundation.redis
    assert 1000 <= await redis.xlen(key) <= 1200
    assert 0 < await redis.ttl(key) <= 24 * 3600


class Ears:
    """A feed over a Redis that can fail."""

    def __init__(self, feed: UserFeed, user_id: UserId) -> None:
        self.user_id = user_id
        self._batches = feed.stream(user_id)

    async def next(self) -> StreamedUserEvent:
        async with asyncio.timeout(20):
            async for batch in self._batches:
                if batch:
                    return batch[0]
        raise AssertionError("the stream ended")

    async def close(self) -> None:
        await self._batches.aclose()


class NoListener:
    """Hears nothing."""

    def hear(self, message: bytes) -> None:
        """Do nothing."""

    def interrupt(self) -> None:
        """Do nothing."""


@asynccontextmanager
async def ears(
    stack: Stack, user: ApiUser, redis: Redis, *, check_s: float = 3600
) -> AsyncIterator[Ears]:
    async with EventHub(redis, NoListener()) as hub:
        feed = UserFeed(hub, stack.foundation.database, keep_alive_s=0.1, check_s=check_s)
        listening = Ears(feed, UserId(UUID(user.id)))
        assert (await listening.next()).name == ResyncEvent.event_name
        yield listening
        await listening.close()


async def test_after_a_cut_to_redis_the_lists_are_to_be_read(stack: Stack, user: ApiUser) -> None:
    async with (
        RedisProxy.open(stack.addresses.redis) as proxy,
        Redis.from_url(proxy.url) as redis,
        ears(stack, user, redis) as listening,
    ):
        await proxy.cut()
        assert (await listening.next()).name == ResyncEvent.event_name
        await user.create_chat("One")
        assert (await listening.next()).name == "chat"


async def test_what_redis_did_not_take_is_made_up_for(stack: Stack, user: ApiUser) -> None:
    """A process whose connection failed lets clients read their lists as soon as it is back."""
    async with (
        RedisProxy.open(stack.addresses.redis) as proxy,
        Redis.from_url(proxy.url, socket_timeout=0.2) as broken,
        ears(stack, user, stack.foundation.redis) as listening,
    ):
        writer = EventWriter(broken, retention_s=60)
        news = News(
            listening.user_id,
            Changed(
                turn_id=TurnId(new_id()), chat_id=ChatId(new_id()), status=TurnStatus.COMPLETED
            ),
        )
        proxy.hang()
        await writer.announce(news)
        proxy.resume()
        writer._paused_until = 0.0
        await writer.announce(News(UserId(new_id()), ResyncEvent()))
        assert (await listening.next()).name == ResyncEvent.event_name


async def test_a_change_that_no_event_announces_is_noticed(stack: Stack, user: ApiUser) -> None:
    """A process may die between its commit and Redis."""
    chat = await user.create_chat("One")
    async with ears(stack, user, stack.foundation.redis, check_s=0.3) as listening:
        await stack.inspection.execute(
            "UPDATE chats SET title = 'Two', version = version + 1 WHERE id = $1", UUID(chat)
        )
        assert (await listening.next()).name == ResyncEvent.event_name
        await user.create_chat("Three")
        assert (await listening.next()).name == "chat"


async def test_the_client_iterates_over_events(stack: Stack, user: ApiUser) -> None:
    said = unique("said")
    stack.model.add(Script(match=said, text="Hello."))
    token = user.headers["Authorization"].removeprefix("Bearer ")
    async with (
        AsyncEverturn(stack.origin, token=token) as client,
        client.users.events() as events,
    ):
        received = aiter(events)
        assert (await anext(received)).type == "resync"
        chat = await client.chats.create(title="One")
        created = await anext(received)
        assert isinstance(created, ChatChangedEvent)
        assert (created.chat_id, created.change, created.title) == (chat.id, "created", "One")
        await user.ask(chat.id, said)
        runs, ended = await anext(received), await anext(received)
        assert isinstance(runs, TurnChangedEvent)
        assert isinstance(ended, TurnChangedEvent)
        assert (runs.status, ended.status) == ("running", "completed")
