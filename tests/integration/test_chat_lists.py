"""What a side bar reads of chats: last message, active turn, pins, tags, and where words stand."""

from typing import Any

import pytest

from tests.fakes.scripted_model.scripts import Script
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.stack import Stack

Row = dict[str, Any]
WIDE = "\uff21\uff22\uff23\uff11\uff12\uff13"
"""ABC123 in the width of East Asian characters."""


async def listed(user: ApiUser, **params: object) -> list[Row]:
    response = await user.request("GET", "/chats", params=params)
    assert response.status_code == 200, response.text
    chats: list[Row] = response.json()["data"]
    return chats


async def change(user: ApiUser, chat: str, **body: object) -> Row:
    response = await user.request("PATCH", f"/chats/{chat}", json=body)
    assert response.status_code == 200, response.text
    changed: Row = response.json()["data"]
    return changed


async def said(user: ApiUser, stack: Stack, question: str, answer: str) -> tuple[str, Row]:
    """Return a chat and the data of its answer."""
    chat = await user.create_chat()
    stack.model.add(Script(match=question, text=answer))
    return chat, await user.ask(chat, question)


def marked(hit: Row) -> list[str]:
    return [hit["excerpt"][mark["start"] : mark["end"]] for mark in hit["marks"]]


async def test_a_chat_shows_its_last_message_and_what_runs(user: ApiUser, stack: Stack) -> None:
    question, chat = unique(), await user.create_chat()
    (empty,) = await listed(user)
    assert (empty["lastMessage"], empty["activeTurn"]) == (None, None)
    stack.model.add(Script(match=question, text="Yes.\n\nAnd  more.", hold=question))

    async with user.stream(chat, question) as stream:
        await stream.until_named("step")
        (running,) = await listed(user)
        stack.model.release(question)
        await stream.all()
    (ended,) = await listed(user)

    assert running["activeTurn"] == {"id": stream.turn_id, "status": "running"}
    assert running["lastMessage"]["role"] == "user"
    assert running["lastMessage"]["text"] == question
    assert ended["activeTurn"] is None
    assert (ended["lastMessage"]["role"], ended["lastMessage"]["text"]) == (
        "assistant",
        "Yes. And more.",
    )
    assert ended["lastMessage"]["id"] == ended["leafId"]
    assert empty["updatedAt"] < running["updatedAt"] < ended["updatedAt"]
    assert (await user.request("GET", f"/chats/{chat}")).json()["data"] == ended


async def test_a_pin_or_a_tag_does_not_make_a_chat_new(user: ApiUser) -> None:
    chat = await user.create_chat()
    (before,) = await listed(user)

    changed = await change(user, chat, pinned=True, tags=["work", " travel ", "work"])

    assert changed == {
        **before,
        "pinned": True,
        "tags": ["work", "travel"],
        "version": 2,
    }
    assert (await listed(user))[0] == changed


async def test_pinned_chats_are_a_list_of_their_own(user: ApiUser) -> None:
    chats = [await user.create_chat(f"Chat {number}") for number in range(5)]
    for chat in chats[1:4]:
        await change(user, chat, pinned=True)
    await change(user, chats[3], archived=True)

    pinned = await user.request("GET", "/chats", params={"pinned": True, "limit": 1})
    cursor = pinned.json()["meta"]["nextCursor"]
    rest = await listed(user, pinned=True, cursor=cursor)
    others = await listed(user, pinned=False, sort="-updatedAt")

    assert [chat["id"] for chat in pinned.json()["data"]] == [chats[2]]
    assert [chat["id"] for chat in rest] == [chats[1]]
    assert [chat["id"] for chat in others] == [chats[4], chats[0]]


async def test_chats_are_found_by_all_of_the_tags(user: ApiUser) -> None:
    both, one = await user.create_chat("Both"), await user.create_chat("One")
    await change(user, both, tags=["旅行", "work"])
    await change(user, one, tags=["work"])

    assert [chat["title"] for chat in await listed(user, tag="work")] == ["One", "Both"]
    assert [chat["title"] for chat in await listed(user, tag=["work", "旅行"])] == ["Both"]
    assert await listed(user, tag="wor") == []
    await change(user, one, tags=[])
    assert [chat["title"] for chat in await listed(user, tag="work")] == ["Both"]


async def test_a_search_says_where_it_hit(user: ApiUser, stack: Stack) -> None:
    word = unique("w").split()[1]
    chat, answer = await said(user, stack, f"Is {word} {'x' * 500} real?", f"No {word.upper()}.")
    await change(user, chat, title=f"About {word}")

    (found,) = await listed(user, q=word)

    title, last, first = found["hits"]
    assert (title["messageId"], title["role"], marked(title)) == (None, None, [word])
    assert title["excerpt"] == f"About {word}"
    assert (last["messageId"], last["role"]) == (answer["assistantMessage"]["id"], "assistant")
    assert marked(last) == [word.upper()]
    assert (first["messageId"], marked(first)) == (answer["userMessage"]["id"], [word])
    assert len(first["excerpt"]) < 300
    assert "hits" not in (await listed(user))[0]


async def test_each_word_of_a_search_stands_in_the_same_message(
    user: ApiUser, stack: Stack
) -> None:
    first, second = unique("a").split()[1], unique("b").split()[1]
    together, _ = await said(user, stack, f"{second} then {first}", "Yes.")
    await said(user, stack, first, second)

    found = await listed(user, q=f"{first} {second}")

    assert [chat["id"] for chat in found] == [together]
    (hit,) = found[0]["hits"]
    assert marked(hit) == [second, first]


@pytest.mark.parametrize(
    ("written", "searched", "found"),
    [
        ("明日は東京タワーへ行きます", "東京", "東京"),
        ("我们明天去北京的故宫博物院", "故宫", "故宫"),
        ("来週、京都へ出張します", "京都\u3000出張", "京都"),
        ("半角のﾀﾜｰです", "タワー", "ﾀﾜｰ"),
        ("カフェで会う", "ｶﾌｪ", "カフェ"),
        (f"型番は{WIDE}です", "abc123", WIDE),
        ("model abc123", WIDE, "abc123"),
        ("cafe\u0301 noir", "caf\u00e9", "cafe\u0301"),
        ("Straße nach Ärgernis", "ÄRGERNIS", "Ärgernis"),
        ("50 % off_now \\ <b>", "% off_now", "%"),
        ("👩‍👩‍👧 family", "family", "family"),
    ],
)
async def test_words_are_found_however_they_are_written(
    user: ApiUser, *, written: str, searched: str, found: str
) -> None:
    chat = await user.create_chat(written)
    await user.create_chat("Another")

    hits = await listed(user, q=searched)

    assert [hit["id"] for hit in hits] == [chat]
    assert marked(hits[0]["hits"][0])[0] == found


async def test_a_blank_search_is_refused(user: ApiUser) -> None:
    for name, value in (("q", " "), ("q", ""), ("tag", " "), ("q", "x" * 201)):
        response = await user.request("GET", "/chats", params={name: value})
        assert response.status_code == 400, (name, value)


async def test_messages_are_listed_before_and_after_one(user: ApiUser, stack: Stack) -> None:
    chat = await user.create_chat()
    for number in range(3):
        question = unique(f"{number}")
        stack.model.add(Script(match=question, text=f"Answer {number}."))
        await user.ask(chat, question)
    other, _ = await said(user, stack, unique(), "Elsewhere.")
    ids = [message["id"] for message in await user.messages(chat)]

    async def between(**params: object) -> list[str]:
        response = await user.request("GET", f"/chats/{chat}/messages", params=params)
        assert response.status_code == 200, response.text
        return [message["id"] for message in response.json()["data"]]

    assert await between(before=ids[2]) == ids[:2]
    assert await between(after=ids[3]) == ids[4:]
    assert await between(after=ids[0], before=ids[4]) == ids[1:4]
    assert await between(before=ids[4], sort="-createdAt", limit=2) == [ids[3], ids[2]]
    assert await between(branch="all", after=ids[5]) == []
    foreign = (await user.messages(other))[0]["id"]
    for name in ("before", "after"):
        response = await user.request("GET", f"/chats/{chat}/messages", params={name: foreign})
        assert response.status_code == 400
        assert response.json()["error"]["details"][0]["path"] == f"query.{name}"
