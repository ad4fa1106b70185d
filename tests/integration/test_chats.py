"""Chats as their owners use them: searched, sorted, renamed, archived, deleted."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from redis.asyncio import Redis
from temporalio.client import WorkflowFailureError

from schema.actors import acting_user
from schema.ids import ChatId, TurnId, UserId
from schema.result import Ok
from services.erasure import Erasure
from services.events.writer import EventWriter
from tests.fakes.scripted_model.scripts import Script
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.stack import Stack


async def titles(user: ApiUser, **params: str | int | bool) -> list[str]:
    response = await user.request("GET", "/chats", params=params)
    assert response.status_code == 200, response.text
    return [chat["title"] for chat in response.json()["data"]]


def bearer(user: ApiUser) -> bytes:
    return user.headers["Authorization"].encode()


async def version_of(user: ApiUser, chat: str) -> str:
    return str((await user.request("GET", f"/chats/{chat}")).headers["etag"])


async def change(
    user: ApiUser, chat: str, *, tag: str | None = None, **fields: object
) -> httpx.Response:
    headers = {} if tag is None else {"If-Match": tag}
    return await user.request("PATCH", f"/chats/{chat}", json=fields, headers=headers)


async def test_a_chat_is_renamed_archived_and_restored(user: ApiUser) -> None:
    chat = await user.create_chat("Rome")
    created = (await user.request("GET", f"/chats/{chat}")).json()["data"]

    renamed = await change(user, chat, title="Naples")
    archived = await change(user, chat, archived=True)
    kept = await titles(user, archived=False)
    taken_back = await change(user, chat, archived=False)

    assert renamed.json()["data"]["title"] == "Naples"
    assert archived.json()["data"]["archived"] is True
    assert kept == []
    assert taken_back.json()["data"] == {**renamed.json()["data"], "version": 4}
    assert taken_back.json()["data"] == {**created, "title": "Naples", "version": 4}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"title": None},
        {"title": ""},
        {"title": " \u200b\u00a0"},
        {"title": "x" * 201},
        {"archived": "yes"},
        {"pinned": None},
        {"tags": None},
        {"tags": ["a", " "]},
        {"tags": ["x" * 51]},
        {"tags": [f"tag {number}" for number in range(21)]},
        {"a": 1},
    ],
)
async def test_an_invalid_update_is_rejected(user: ApiUser, body: dict[str, Any]) -> None:
    chat = await user.create_chat()

    assert (await change(user, chat, **body)).status_code == 400


async def test_archived_chats_are_listed_only_on_request(user: ApiUser) -> None:
    archived = await user.create_chat("Archived")
    await user.create_chat("Current")
    await change(user, archived, archived=True)

    assert await titles(user) == ["Current"]
    assert await titles(user, archived="false") == ["Current"]
    assert await titles(user, archived="true") == ["Archived"]
    assert await titles(user, archived="any", sort="title") == ["Archived", "Current"]


async def test_a_change_meant_for_an_older_version_is_refused(user: ApiUser) -> None:
    chat = await user.create_chat("First")
    tag = await version_of(user, chat)

    changed = await change(user, chat, tag=tag, title="Second")
    late = await change(user, chat, tag=tag, title="Third")

    assert (changed.status_code, late.status_code) == (200, 412)
    assert late.json()["error"]["code"] == "PRECONDITION_FAILED"
    assert await titles(user) == ["Second"]


async def test_one_of_several_concurrent_updates_of_a_version_succeeds(user: ApiUser) -> None:
    chat = await user.create_chat()
    tag = await version_of(user, chat)

    answers = await asyncio.gather(
        *(change(user, chat, tag=tag, title=f"Title {number}") for number in range(5))
    )

    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412, 412]


@pytest.mark.parametrize("tag", ["3", "", ",", '"1" "2"', '"1", *', '"1", 2', "\xff", '"a b"'])
async def test_invalid_entity_tags_are_rejected(user: ApiUser, tag: str) -> None:
    assert (await change_by_header(user, tag)).status_code == 400


@pytest.mark.parametrize("tag", ["*", '"1"', '"2", "1"', '"x",,W/"9" ,\t"1",', 'W/"2","1"'])
async def test_any_tag_of_a_list_may_be_the_one(user: ApiUser, tag: str) -> None:
    assert (await change_by_header(user, tag)).status_code == 200


async def test_tags_may_stand_in_several_headers(user: ApiUser) -> None:
    chat = await user.create_chat()
    headers = [("Authorization", user.headers["Authorization"]), ("If-Match", '"2"')]

    answer = await user.http.patch(
        f"/chats/{chat}", json={"title": "x"}, headers=[*headers, ("If-Match", '"1"')]
    )

    assert answer.status_code == 200


@pytest.mark.parametrize("tag", ['W/"1"', 'W/"1", "2"', '"x"', '"0"', '""', '"9"', '"01"'])
async def test_an_unknown_entity_tag_matches_nothing(user: ApiUser, tag: str) -> None:
    assert (await change_by_header(user, tag)).status_code == 412


async def change_by_header(user: ApiUser, tag: str) -> httpx.Response:
    chat = await user.create_chat()
    headers = {b"If-Match": tag.encode("latin-1"), b"Authorization": bearer(user)}
    return await user.http.patch(f"/chats/{chat}", json={"title": "x"}, headers=headers)


async def test_chats_are_sorted_as_asked(user: ApiUser, stack: Stack) -> None:
    first, second = await user.create_chat("Beta"), await user.create_chat("Alpha")
    question = unique()
    stack.model.add(Script(match=question, text="Yes."))
    await user.ask(first, question)
    await change(user, second, archived=False)

    assert await titles(user, sort="createdAt") == ["Beta", "Alpha"]
    assert await titles(user, sort="-createdAt") == ["Alpha", "Beta"]
    assert await titles(user, sort="title") == ["Alpha", "Beta"]
    assert await titles(user, sort="-title") == ["Beta", "Alpha"]
    assert await titles(user, sort="-updatedAt") == ["Beta", "Alpha"]
    assert await titles(user, sort="updatedAt") == ["Alpha", "Beta"]


@pytest.mark.parametrize("sort", ["createdAt", "title", "-title", "updatedAt", "-updatedAt"])
async def test_pages_in_any_order_hold_every_row_once(user: ApiUser, sort: str) -> None:
    created = [await user.create_chat(title) for title in ("b", "a", "b", "\u202e\u05d0", "b")]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        params = {"sort": sort, "limit": 2} | ({} if cursor is None else {"cursor": cursor})
        body = (await user.request("GET", "/chats", params=params)).json()
        assert "data" in body, body
        seen += [chat["id"] for chat in body["data"]]
        cursor = body["meta"]["nextCursor"]
        if cursor is None:
            break

    assert sorted(seen) == sorted(created)


async def test_the_cursor_of_another_order_is_refused(user: ApiUser) -> None:
    for _ in range(2):
        await user.create_chat()
    page = await user.request("GET", "/chats", params={"limit": 1, "sort": "title"})
    cursor = page.json()["meta"]["nextCursor"]

    response = await user.request("GET", "/chats", params={"sort": "-title", "cursor": cursor})

    assert response.status_code == 400


async def test_the_cursor_of_another_list_is_refused(user: ApiUser) -> None:
    for _ in range(2):
        await user.create_chat()
    page = await user.request("GET", "/chats", params={"limit": 1})
    cursor = page.json()["meta"]["nextCursor"]

    response = await user.request("GET", "/memories", params={"cursor": cursor})

    assert response.status_code == 400


async def test_search_covers_only_the_users_own_titles_and_messages(
    user: ApiUser, other_user: ApiUser, stack: Stack
) -> None:
    word = uuid4().hex
    question = unique(f"Is {word.upper()} a word?")
    stack.model.add(Script(match=question, text="No."))
    said = await user.create_chat("Said in a message")
    await user.ask(said, question)
    await user.create_chat(f"In the title: {word}")
    await user.create_chat("Neither")
    await other_user.create_chat(word)

    assert set(await titles(user, search=word)) == {
        f"In the title: {word}",
        "Said in a message",
    }


async def test_wildcards_in_a_search_are_characters_like_any_other(user: ApiUser) -> None:
    for title in ("100 %", "a_b", "aXb", r"back\slash", "plain"):
        await user.create_chat(title)

    assert await titles(user, search="%") == ["100 %"]
    assert await titles(user, search="a_b") == ["a_b"]
    assert await titles(user, search="\\") == [r"back\slash"]


async def test_a_key_creates_one_chat_however_often_it_is_sent(user: ApiUser) -> None:
    async def create(title: str) -> httpx.Response:
        return await user.request(
            "POST", "/chats", json={"title": title}, headers={"Idempotency-Key": "k"}
        )

    answers = await asyncio.gather(*(create("Once") for _ in range(5)))
    other = await create("Twice")

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["data"]["id"] for answer in answers}) == 1
    assert other.status_code == 409
    assert other.json()["error"]["code"] == "IDEMPOTENCY_CONFLICT"
    assert await titles(user) == ["Once"]


async def test_a_key_reports_that_the_chat_it_created_is_deleted(user: ApiUser) -> None:
    request = {"json": {"title": "Once"}, "headers": {"Idempotency-Key": "k"}}
    created = await user.request("POST", "/chats", **request)
    await user.request("DELETE", f"/chats/{created.json()['data']['id']}")

    again = await user.request("POST", "/chats", **request)

    assert again.status_code == 409
    assert again.json()["error"]["code"] == "IDEMPOTENCY_CONFLICT"
    assert again.json()["error"]["message"] == (
        "The resource created with this key has been deleted."
    )
    assert await titles(user) == []


async def test_the_key_of_another_user_is_another_key(user: ApiUser, other_user: ApiUser) -> None:
    created = [
        (
            await person.request(
                "POST", "/chats", json={"title": "Mine"}, headers={"Idempotency-Key": "shared"}
            )
        ).json()["data"]["id"]
        for person in (user, other_user)
    ]

    assert created[0] != created[1]


async def test_a_deleted_chat_leaves_no_text_behind(user: ApiUser, stack: Stack) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Forget me."))
    chat = await user.create_chat()
    turn = (await user.ask(chat, question))["turn"]["id"]

    deleted = await user.request("DELETE", f"/chats/{chat}")

    assert deleted.status_code == 204
    assert (await user.request("GET", f"/chats/{chat}")).status_code == 404
    assert (await user.request("GET", f"/turns/{turn}/events")).status_code == 404
    assert (await user.request("DELETE", f"/chats/{chat}")).status_code == 404
    assert not await stack.foundation.redis.exists(f"everturn:{{{turn}}}:events")
    assert await stack.inspection.rows("SELECT 1 FROM turns WHERE chat_id = $1", UUID(chat)) == []
    assert (
        await stack.inspection.rows("SELECT 1 FROM erasures WHERE turn_id = $1", UUID(turn)) == []
    )


async def test_deleting_a_chat_stops_the_turn_that_runs_in_it(user: ApiUser, stack: Stack) -> None:
    question = unique()
    stack.model.add(Script(match=question, pieces=("One, ", "two."), hold=question, hold_after=1))
    chat = await user.create_chat()
    async with user.stream(chat, question) as stream:
        await stream.until_text("One, ")
        turn = stream.turn_id
        deleted = await user.request("DELETE", f"/chats/{chat}")
        record = await stack.model.wait_for_request(match=question)
        handle = stack.temporal.get_workflow_handle(f"turn-{turn}")
        with pytest.raises(WorkflowFailureError):
            await handle.result()

    assert deleted.status_code == 204
    assert record.disconnected_at is not None
    assert not await stack.foundation.redis.exists(f"everturn:{{{turn}}}:events")


async def test_only_running_turns_of_a_deleted_chat_are_cancelled(
    user: ApiUser, stack: Stack
) -> None:
    first, second = unique(), unique()
    stack.model.add(Script(match=first, text="Done."))
    stack.model.add(Script(match=second, pieces=("One, ", "two."), hold=second, hold_after=1))
    chat = await user.create_chat()
    ended = TurnId(UUID((await user.ask(chat, first))["turn"]["id"]))
    async with user.stream(chat, second) as stream:
        await stream.until_text("One, ")
        running = TurnId(UUID(stream.turn_id))
        actor = acting_user(UserId(UUID(user.id)))
        deleted = await stack.services.chats.delete(actor, ChatId(UUID(chat)))
        await stack.services.temporal.cancel_turns([running])

    assert isinstance(deleted, Ok)
    assert set(deleted.value.all) == {ended, running}
    assert deleted.value.unfinished == (running,)


async def test_followers_of_a_deleted_chats_turn_are_notified_at_once(
    user: ApiUser, stack: Stack
) -> None:
    question = unique()
    stack.model.add(Script(match=question, pieces=("One, ", "two."), hold=question, hold_after=1))
    chat = await user.create_chat()
    waiting = asyncio.create_task(user.post(chat, question))
    await stack.model.wait_for_request(match=question)
    turn = await stack.inspection.value("SELECT id FROM turns WHERE chat_id = $1", UUID(chat))
    async with user.follow(str(turn)) as stream:
        await stream.until_text("One, ")
        await user.request("DELETE", f"/chats/{chat}")
        events = await stream.all()

    assert [event.name for event in events[-2:]] == ["error", "done"]
    assert events[-2].data["code"] == "NOT_FOUND"
    assert (await waiting).status_code == 404
    charges = await stack.inspection.charges(str(turn))
    assert [charge["status"] for charge in charges if charge["status"] == "open"] == []


async def test_a_stream_that_redis_did_not_erase_is_erased_later(
    user: ApiUser, stack: Stack
) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Still there."))
    turn = TurnId(UUID((await user.ask(await user.create_chat(), question))["turn"]["id"]))
    away = Redis(host="127.0.0.1", port=1, socket_connect_timeout=1)
    database = stack.foundation.database
    await stack.inspection.execute("INSERT INTO erasures (turn_id) VALUES ($1)", turn)

    await Erasure(database, EventWriter(away, retention_s=1).erase).erase([turn])
    postponed = await Erasure(database, stack.foundation.events.erase).pending(limit=10_000)
    await Erasure(database, stack.foundation.events.erase).erase([turn])
    left = await Erasure(database, stack.foundation.events.erase).pending(limit=10_000)
    await away.aclose()

    assert turn in postponed
    assert turn not in left
    assert not await stack.foundation.redis.exists(f"everturn:{{{turn}}}:events")
