"""Each route: the shape of its success, and who may use it."""

import re
import uuid
from typing import Any

import httpx
import pytest

from tests.contracts.conftest import Documented
from tests.fakes.scripted_model.scripts import Script
from tests.fixtures.api_user import PASSWORD, ApiUser, unique
from tests.fixtures.stack import Stack
from tests.running_everturn.waiting import eventually

CHAT = {
    *("id", "title", "archived", "pinned", "tags", "leafId", "lastMessage", "activeTurn"),
    *("version", "createdAt", "updatedAt"),
}
OUTLINE = {
    *("id", "chatId", "turnId", "parentId", "role", "content", "status", "createdAt"),
    *("metadata", "structured", "joinedStep", "citations", "error", "model", "usage", "costUsd"),
    *("stopReason", "startedAt", "finishedAt"),
}
MESSAGE = {*OUTLINE, "parts", "feedback"}
SESSION = {"accessToken", "refreshToken", "tokenType", "expiresIn", "user"}
TURN = {
    *("id", "chatId", "status", "model", "userMessageId", "assistantMessageId", "regenerates"),
    *("options", "steers", "joinedStep"),
    *("error", "usage", "costUsd", "createdAt", "startedAt", "finishedAt"),
}
USAGE = {"inputTokens", "outputTokens", "cacheReadTokens", "cacheWriteTokens"}
USER = {
    *("id", "email", "emailVerified", "pendingEmail", "displayName", "role", "version"),
    *("createdAt", "updatedAt"),
}


def data_of(response: httpx.Response, status: int = 200) -> Any:  # noqa: ANN401 -- any JSON
    """Return `data` of a success, and check the envelope around it."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"data", "meta"}
    assert body["meta"]["requestId"] == response.headers["x-request-id"]
    return body["data"]


def check_id(value: str) -> None:
    assert uuid.UUID(value).version == 7
    assert str(uuid.UUID(value)) == value


def check_time(value: str) -> None:
    assert value.endswith("Z")
    assert len(value) == len("2026-01-31T09:00:00.000000Z")


async def answered(member: ApiUser, stack: Stack) -> tuple[str, dict[str, Any]]:
    """Return a chat with one turn, and `data` of its answer."""
    question = unique()
    stack.model.add(Script(match=question, text="Here."))
    chat = await member.create_chat()
    return chat, await member.ask(chat, question)


async def test_liveness(recorded: httpx.AsyncClient) -> None:
    assert data_of(await recorded.get("/health/live")) == {"status": "ok"}


async def test_readiness_names_each_dependency(recorded: httpx.AsyncClient) -> None:
    async def look() -> dict[str, Any]:
        data: dict[str, Any] = data_of(await recorded.get("/health/ready"))
        return data

    # A server that is slow for a moment counts as unavailable.
    data = await eventually(look, lambda seen: seen["status"] == "ok")

    assert data == {
        **dict.fromkeys(("status", "database", "redis", "temporal"), "ok"),
        "problems": [],
    }


async def test_signup(recorded: httpx.AsyncClient) -> None:
    email = f"{uuid.uuid4().hex}@example.com"
    body = {"email": email, "password": PASSWORD, "displayName": "Ada"}

    session = data_of(await recorded.post("/auth/signup", json=body), 201)

    assert set(session) == SESSION
    assert set(session["user"]) == USER
    assert (session["user"]["displayName"], session["user"]["role"]) == ("Ada", "user")
    check_id(session["user"]["id"])
    check_time(session["user"]["createdAt"])


async def test_login(recorded: httpx.AsyncClient, member: ApiUser) -> None:
    body = {"email": member.email, "password": PASSWORD}

    session = data_of(await recorded.post("/auth/login", json=body))

    assert set(session) == SESSION
    assert session["user"] == member.session["user"]


async def test_refresh(recorded: httpx.AsyncClient, member: ApiUser) -> None:
    body = {"refreshToken": member.session["refreshToken"]}

    assert set(data_of(await recorded.post("/auth/refresh", json=body))) == SESSION


async def test_logout(recorded: httpx.AsyncClient, member: ApiUser) -> None:
    body = {"refreshToken": member.session["refreshToken"]}

    response = await recorded.post("/auth/logout", json=body)

    assert (response.status_code, response.content) == (204, b"")


async def test_me(member: ApiUser) -> None:
    assert data_of(await member.request("GET", "/auth/me")) == member.session["user"]


async def test_a_chat_is_created_listed_and_read(member: ApiUser) -> None:
    made = data_of(await member.request("POST", "/chats", json={"title": "Rome"}), 201)
    listed = data_of(await member.request("GET", "/chats"))
    read = data_of(await member.request("GET", f"/chats/{made['id']}"))

    assert set(made) == CHAT
    check_id(made["id"])
    check_time(made["createdAt"])
    assert made["title"] == "Rome"
    assert listed == [made]
    assert read == made


async def test_an_answer_has_its_turn_and_both_messages(member: ApiUser, stack: Stack) -> None:
    chat, data = await answered(member, stack)

    assert set(data) == {"turn", "userMessage", "assistantMessage"}
    assert set(data["turn"]) == TURN
    assert set(data["turn"]["usage"]) == USAGE
    assert set(data["userMessage"]) == set(data["assistantMessage"]) == MESSAGE
    assert data["turn"]["userMessageId"] == data["userMessage"]["id"]
    assert data["turn"]["assistantMessageId"] == data["assistantMessage"]["id"]
    assert {message["chatId"] for message in await member.messages(chat)} == {chat}
    assert "e" not in data["turn"]["costUsd"].lower()
    assert float(data["turn"]["costUsd"]) > 0
    for field in ("createdAt", "startedAt", "finishedAt"):
        check_time(data["turn"][field])


async def test_messages_are_listed_in_the_order_of_the_conversation(
    member: ApiUser, stack: Stack
) -> None:
    chat, data = await answered(member, stack)

    listed = data_of(await member.request("GET", f"/chats/{chat}/messages"))

    assert listed == [data["userMessage"], data["assistantMessage"]]


async def test_a_turn_is_read_and_stopping_an_ended_one_answers_with_it(
    member: ApiUser, stack: Stack
) -> None:
    _, data = await answered(member, stack)
    turn_id = data["turn"]["id"]

    assert data_of(await member.request("GET", f"/turns/{turn_id}")) == data["turn"]
    cancelled = await member.request("POST", f"/turns/{turn_id}/cancel")
    assert data_of(cancelled, 202) == data["turn"]


EVENT_FIELDS = {
    "turn": {"turnId", "chatId", "status", "userMessageId"},
    "step": {"step", "attempt", "model"},
    "delta": {"step", "attempt", "text"},
    "usage": {"step", "attempt", "model", "costUsd", *USAGE},
    "done": {"status", "assistantMessage", "usage", "costUsd"},
}


async def test_events_have_their_documented_fields(member: ApiUser, stack: Stack) -> None:
    _, data = await answered(member, stack)

    events = await member.events(data["turn"]["id"])

    assert [event.name for event in events] == ["turn", "step", "delta", "usage", "done"]
    for event in events:
        assert set(event.data) == EVENT_FIELDS[event.name]
    answer = data["assistantMessage"]
    assert events[-1].data["assistantMessage"] == {
        name: answer[name] for name in OUTLINE if answer[name] is not None
    }
    assert events[-1].data["costUsd"] == data["turn"]["costUsd"]


async def test_a_failed_turn_has_a_reason(member: ApiUser, stack: Stack) -> None:
    question = unique()
    stack.model.add(Script(match=question, status=400))
    chat = await member.create_chat()

    response = await member.post(chat, question)

    turn = data_of(await member.request("GET", f"/turns/{await failed_turn(member, chat)}"))
    assert set(turn["error"]) == {"code", "message", "retryable"}
    error = {**response.json()["error"]}
    assert error == {**turn["error"], "turnId": turn["id"]}


async def failed_turn(member: ApiUser, chat: str) -> str:
    (message,) = await member.messages(chat)
    return str(message["turnId"])


def example(path: str) -> str:
    return re.sub(r"\{[^}]+\}", str(uuid.uuid4()), path)


@pytest.mark.parametrize("path", ["/nothing", "/chats/", "/", "/health"])
async def test_an_unknown_endpoint_is_not_found(recorded: httpx.AsyncClient, path: str) -> None:
    response = await recorded.get(path)

    assert response.status_code == 404
    assert response.json()["error"] == {
        "code": "NOT_FOUND",
        "message": "No such endpoint.",
        "retryable": False,
    }


async def test_a_method_that_an_address_does_not_take_is_refused(
    stack: Stack, documented: Documented
) -> None:
    async with httpx.AsyncClient(base_url=stack.origin, trust_env=False) as client:
        for path, operations in documented.paths.items():
            response = await client.request("TRACE", example(path))
            assert response.status_code == 405, path
            assert response.json()["error"]["code"] == "METHOD_NOT_ALLOWED"
            allowed = set(response.headers["allow"].split(", "))
            assert allowed >= {method.upper() for method in operations}
