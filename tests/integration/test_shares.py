"""Shares: anyone with the link reads what was said, and nothing else, until it ends."""

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import pytest

from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fixtures.api_user import PASSWORD, ApiUser, unique
from tests.fixtures.stack import Stack


class Sharer:
    """A user with a chat of one answered question, in which a tool was called."""

    def __init__(self, stack: Stack, user: ApiUser, chat: str, said: str) -> None:
        self.stack = stack
        self.user = user
        self.chat = chat
        self.said = said

    async def share(self, **body: object) -> dict[str, Any]:
        response = await self.user.request("POST", f"/chats/{self.chat}/shares", json=body)
        assert response.status_code == 201, response.text
        share: dict[str, Any] = response.json()["data"]
        return share

    async def read(self, token: str) -> httpx.Response:
        """Read as someone who is not signed in."""
        return await self.stack.http.get(f"/shared/{token}")

    async def messages(self) -> list[dict[str, Any]]:
        listed = await self.user.request("GET", f"/chats/{self.chat}/messages")
        found: list[dict[str, Any]] = listed.json()["data"]
        return found


@pytest.fixture
async def sharer(stack: Stack) -> AsyncIterator[Sharer]:
    user, said = await stack.sign_up(), unique("said")
    chat = await user.create_chat("Trip to Rome")
    call = ToolCall(name="calculator", input={"expression": "6 * 7"}, id="toolu_1")
    stack.model.add(Script(match=said, tool_calls=(call,)))
    stack.model.add(Script(match=said, text="Take a train."))
    await user.post(chat, said, metadata={"secret": "of the client"})
    yield Sharer(stack, user, chat, said)
    stack.model.clear_scripts()


async def test_anyone_with_the_link_reads_what_was_said_and_nothing_else(sharer: Sharer) -> None:
    share = await sharer.share()

    response = await sharer.read(share["token"])

    shared = response.json()["data"]
    assert shared["title"] == "Trip to Rome"
    assert [(one["role"], one["content"]) for one in shared["messages"]] == [
        ("user", sharer.said),
        ("assistant", "Take a train."),
    ]
    assert {*shared["messages"][0]} == {"role", "content", "createdAt"}
    assert shared["isWhole"] is True
    assert response.headers["X-Robots-Tag"] == "noindex, nofollow"
    assert response.headers["Cache-Control"] == "no-store"
    for private in (
        sharer.user.id,
        sharer.chat,
        share["id"],
        "calculator",
        "secret",
        "example.com",
    ):
        assert private not in json.dumps(shared)
    assert share["url"].endswith(f"/api/v1/shared/{share['token']}")


async def test_what_follows_later_is_not_shared(sharer: Sharer) -> None:
    share = await sharer.share(title="A tip")
    sharer.stack.model.add(Script(match=f"{sharer.said} again", text="Later."))
    await sharer.user.ask(sharer.chat, f"{sharer.said} again")
    question = (await sharer.messages())[0]["id"]
    begun = await sharer.share(messageId=question)

    whole = (await sharer.read(share["token"])).json()["data"]
    start = (await sharer.read(begun["token"])).json()["data"]

    assert (whole["title"], len(whole["messages"])) == ("A tip", 2)
    assert [one["content"] for one in start["messages"]] == [sharer.said]


@pytest.mark.parametrize("end", ["revoked", "chat", "message", "disabled", "user", "expired"])
async def test_a_link_ends_with_what_it_shares(sharer: Sharer, end: str) -> None:
    share = await sharer.share()
    assert (await sharer.read(share["token"])).status_code == 200
    user, inspection = sharer.user, sharer.stack.inspection
    match end:
        case "revoked":
            await user.request("DELETE", f"/shares/{share['id']}")
        case "chat":
            await user.request("DELETE", f"/chats/{sharer.chat}")
        case "message":
            await user.request("DELETE", f"/messages/{(await sharer.messages())[0]['id']}")
        case "disabled":
            await inspection.execute(
                "UPDATE users SET status = 'disabled' WHERE id = $1", UUID(user.id)
            )
        case "user":
            await user.request("DELETE", "/users/me", json={"currentPassword": PASSWORD})
        case _:
            await inspection.execute(
                "UPDATE shares SET expires_at = now() WHERE id = $1", UUID(share["id"])
            )

    ended = await sharer.read(share["token"])

    assert ended.status_code == 404
    assert ended.json()["error"]["code"] == "NOT_FOUND"


async def test_shares_are_listed_and_revoked_by_their_owner_alone(
    sharer: Sharer, other_user: ApiUser
) -> None:
    key = {"Idempotency-Key": unique("key")}
    path = f"/chats/{sharer.chat}/shares"
    first = (await sharer.user.request("POST", path, json={}, headers=key)).json()["data"]
    again = (await sharer.user.request("POST", path, json={}, headers=key)).json()["data"]

    listed = (await sharer.user.request("GET", path)).json()["data"]
    foreign = await other_user.request("GET", path)
    stolen = await other_user.request("DELETE", f"/shares/{first['id']}")
    exported = (await sharer.user.request("GET", "/users/me/export")).json()["data"]

    assert (again["id"], again["token"]) == (first["id"], None)
    assert [share["id"] for share in listed] == [first["id"]]
    assert "token" not in listed[0]
    assert (foreign.status_code, stolen.status_code) == (403, 403)
    assert [share["id"] for share in exported["shares"]] == [first["id"]]
    assert first["token"] not in json.dumps(exported)
    actions = await sharer.stack.inspection.value(
        "SELECT array_agg(action ORDER BY id) FROM audit_log WHERE resource_type = 'share' "
        "AND resource_id = $1",
        first["id"],
    )
    assert actions == ["share.created"]


@pytest.mark.parametrize("token", ["x", "x" * 200, "ü", "%00", "..%2F..", "' OR 1=1 --"])
async def test_a_token_that_is_none_finds_nothing(sharer: Sharer, token: str) -> None:
    assert (await sharer.read(token)).status_code in {400, 404}


async def test_what_can_not_be_shared_is_named(sharer: Sharer) -> None:
    empty = await sharer.user.create_chat()
    path = f"/chats/{sharer.chat}/shares"
    past = {"expiresAt": "2020-01-01T00:00:00Z"}

    nothing = await sharer.user.request("POST", f"/chats/{empty}/shares", json={})
    foreign = await sharer.user.request("POST", path, json={"messageId": sharer.chat})
    expired = await sharer.user.request("POST", path, json=past)

    assert nothing.status_code == 409
    assert foreign.json()["error"]["details"][0]["path"] == "body.messageId"
    assert expired.json()["error"]["details"][0]["path"] == "body.expiresAt"


async def test_operators_may_switch_sharing_off(
    sharer: Sharer, monkeypatch: pytest.MonkeyPatch
) -> None:
    share = await sharer.share()
    monkeypatch.setattr(sharer.stack.services.shares, "_is_on", False)

    refused = await sharer.user.request("POST", f"/chats/{sharer.chat}/shares", json={})

    assert refused.status_code == 403
    assert (await sharer.read(share["token"])).status_code == 404
    revoked = await sharer.user.request("DELETE", f"/shares/{share['id']}")
    assert revoked.status_code == 204
