"""Branches copied into chats of their own, and conversations imported from elsewhere."""

from typing import Any
from uuid import UUID

import pytest

from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.stack import Stack


async def messages(user: ApiUser, chat: str, query: str = "") -> list[dict[str, Any]]:
    response = await user.request("GET", f"/chats/{chat}/messages?limit=100{query}")
    listed: list[dict[str, Any]] = response.json()["data"]
    return listed


async def fork(user: ApiUser, chat: str, **body: str) -> dict[str, Any]:
    response = await user.request("POST", f"/chats/{chat}/fork", json=body)
    assert response.status_code == 201, response.text
    copy: dict[str, Any] = response.json()["data"]
    assert response.headers["Location"] == f"/api/v1/chats/{copy['id']}"
    return copy


def said(listed: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in listed]


def sent_by(stack: Stack) -> list[dict[str, Any]]:
    """Return the messages of the newest request to the model."""
    body = stack.model.requests[-1].body
    assert body is not None
    found: list[dict[str, Any]] = body["messages"]
    return found


async def used(user: ApiUser) -> dict[str, Any]:
    usage: dict[str, Any] = (await user.request("GET", "/subscription/usage")).json()["data"]
    return usage


async def test_a_fork_continues_a_conversation_with_its_tool_calls(
    user: ApiUser, stack: Stack
) -> None:
    chat, asked = await user.create_chat("Numbers"), unique("asked")
    call = ToolCall(name="calculator", input={"expression": "6 * 7"}, id="toolu_1")
    stack.model.add(Script(match=asked, tool_calls=(call,)))
    stack.model.add(Script(match=asked, text="It is 42."))
    await user.ask(chat, asked)
    stack.model.add(Script(match=f"{asked} two", text="Second."))
    await user.ask(chat, f"{asked} two")
    before = await used(user)

    copy = await fork(user, chat)

    original, copied = await messages(user, chat), await messages(user, copy["id"])
    assert copy["title"] == "Numbers"
    assert copy["leafId"] == copied[-1]["id"]
    assert said(copied) == said(original)
    assert {message["id"] for message in copied}.isdisjoint({one["id"] for one in original})
    assert [part["type"] for part in copied[1]["parts"]] == [
        part["type"] for part in original[1]["parts"]
    ]
    assert "42" in str(copied[1]["parts"])
    assert copied[1]["costUsd"] == "0"
    assert await used(user) == before
    turns = (await user.request("GET", f"/chats/{copy['id']}/turns")).json()["data"]
    assert turns == []

    stack.model.add(Script(match=f"{asked} three", text="Third."))
    await user.ask(copy["id"], f"{asked} three")
    sent = str(sent_by(stack))
    assert "It is 42." in sent
    assert "tool_use" in sent
    assert len(await messages(user, chat)) == 4
    deleted = await user.request("DELETE", f"/chats/{chat}")
    assert deleted.status_code == 204
    assert len(await messages(user, copy["id"])) == 6


async def test_a_fork_ends_at_a_message_of_any_branch(user: ApiUser, stack: Stack) -> None:
    chat, one, two = await user.create_chat(), unique("one"), unique("two")
    stack.model.add(Script(match=one, text="First."))
    stack.model.add(Script(match=two, text="Edited."))
    await user.ask(chat, one)
    question, answer = await messages(user, chat)
    await user.request(
        "POST", f"/chats/{chat}/messages", json={"content": two, "parentId": question["parentId"]}
    )

    whole = await fork(user, chat, messageId=answer["id"], title="First branch")
    begun = await fork(user, chat, messageId=question["id"])

    assert whole["title"] == "First branch"
    assert said(await messages(user, whole["id"])) == [("user", one), ("assistant", "First.")]
    assert said(await messages(user, begun["id"], "&branch=all")) == [("user", one)]
    stack.model.add(Script(match=one, text="Again."))
    [copied] = await messages(user, begun["id"])
    again = await user.request("POST", f"/turns/{copied['turnId']}/regenerate", json={})
    assert again.json()["data"]["assistantMessage"]["content"] == "Again."


async def test_forks_are_repeated_by_key_and_refused_for_what_is_not_there(
    user: ApiUser, other_user: ApiUser
) -> None:
    chat, other = await user.create_chat(), await user.create_chat()
    key = {"Idempotency-Key": unique("key")}

    first = await user.request("POST", f"/chats/{chat}/fork", json={}, headers=key)
    again = await user.request("POST", f"/chats/{chat}/fork", json={}, headers=key)
    clash = await user.request("POST", f"/chats/{other}/fork", json={}, headers=key)
    missing = await user.request("POST", f"/chats/{chat}/fork", json={"messageId": chat})
    foreign = await other_user.request("POST", f"/chats/{chat}/fork", json={})

    assert first.json()["data"]["id"] == again.json()["data"]["id"]
    assert clash.json()["error"]["code"] == "IDEMPOTENCY_CONFLICT"
    assert missing.status_code == 400
    assert missing.json()["error"]["details"][0]["path"] == "body.messageId"
    assert foreign.status_code == 403


async def test_an_imported_conversation_answers_at_once(user: ApiUser, stack: Stack) -> None:
    asked, told = unique("asked"), unique("told")
    created = await user.request(
        "POST",
        "/chats",
        json={
            "title": "From elsewhere",
            "messages": [
                {"role": "assistant", "content": "How can I help?"},
                {"role": "user", "content": told, "createdAt": "2024-05-06T07:08:09Z"},
                {"role": "user", "content": "And this."},
                {"role": "assistant", "content": ""},
                {"role": "assistant", "content": "I see."},
                {"role": "assistant", "content": "Both."},
                {"role": "user", "content": "Unanswered."},
            ],
        },
    )
    assert created.status_code == 201, created.text
    chat = created.json()["data"]

    listed = await messages(user, chat["id"])
    assert said(listed) == [
        ("assistant", "How can I help?"),
        ("user", f"{told}\n\nAnd this."),
        ("assistant", "I see.\n\nBoth."),
        ("user", "Unanswered."),
    ]
    assert listed[1]["createdAt"] == "2024-05-06T07:08:09.000000Z"
    assert chat["leafId"] == listed[-1]["id"]
    assert (await used(user))["messages"] == 0

    stack.model.add(Script(match=asked, text="Yes."))
    await user.ask(chat["id"], asked)
    sent = sent_by(stack)
    assert [message["role"] for message in sent] == ["user", "assistant", "user"]
    assert told in str(sent[0])
    refused = await user.request("POST", f"/turns/{listed[0]['turnId']}/regenerate", json={})
    assert refused.status_code == 404


async def test_two_thousand_messages_are_imported_in_one_request(
    user: ApiUser, stack: Stack
) -> None:
    said_before = [
        {"role": ("user", "assistant")[number % 2], "content": f"Message {number} of many."}
        for number in range(2000)
    ]
    created = await user.request("POST", "/chats", json={"messages": said_before})
    assert created.status_code == 201, created.text
    chat = created.json()["data"]

    newest = await messages(user, chat["id"], "&sort=-createdAt")
    assert newest[0]["content"] == "Message 1999 of many."
    rows = await stack.inspection.value(
        "SELECT count(*) FROM messages WHERE chat_id = $1", UUID(chat["id"])
    )
    assert rows == 2000
    copy = await fork(user, chat["id"])
    assert copy["lastMessage"]["text"] == "Message 1999 of many."


@pytest.mark.parametrize(
    ("message", "path"),
    [
        ({"role": "system", "content": "x"}, "body.messages.0.role"),
        ({"role": "user"}, "body.messages.0.content"),
        ({"role": "user", "content": "x" * 100_001}, "body.messages.0.content"),
        ({"role": "user", "content": "x\x00"}, "body.messages.0.content"),
        ({"role": "user", "content": "x", "createdAt": "yesterday"}, "body.messages.0.createdAt"),
    ],
)
async def test_what_can_not_be_imported_is_named(
    user: ApiUser, message: dict[str, str], path: str
) -> None:
    refused = await user.request("POST", "/chats", json={"messages": [message]})

    assert refused.status_code == 400
    assert refused.json()["error"]["details"][0]["path"] == path
