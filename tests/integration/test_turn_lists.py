"""The lists of turns: what runs, what waits for approval, and what a chat's turns became."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.stack import Stack
from tests.fixtures.tool_settings import changed_settings

Row = dict[str, Any]


@pytest.fixture
async def asking(admin: ApiUser) -> AsyncIterator[None]:
    """The calculator waits for approval."""
    async with changed_settings(admin, "calculator", approval="ask"):
        yield


async def listed(user: ApiUser, path: str = "/turns", **params: object) -> list[Row]:
    response = await user.request("GET", path, params=params)
    assert response.status_code == 200, response.text
    turns: list[Row] = response.json()["data"]
    return turns


@pytest.mark.usefixtures("asking")
async def test_what_waits_for_approval_is_listed_with_its_input(
    user: ApiUser, other_user: ApiUser, stack: Stack
) -> None:
    question, chat = unique(), await user.create_chat()
    call = ToolCall(id="sum", name="calculator", input={"expression": "6 * 7"})
    stack.model.add(Script(match=question, tool_calls=(call,)))
    stack.model.add(Script(match=question, text="I see."))

    async with user.stream(chat, question) as stream:
        asked = await stream.until(
            lambda event: (
                event.data.get("status") == "awaiting_approval" and event.name == "tool_call"
            )
        )
        (waiting,) = await listed(user, status="awaiting_approval")
        in_chat = await listed(user, f"/chats/{chat}/turns", status="awaiting_approval")
        others = await listed(other_user, status=["awaiting_approval", "running"])
        forbidden = await other_user.request("GET", f"/chats/{chat}/turns")
        (pending,) = waiting["pendingToolCalls"]
        decided = await user.request(
            "POST",
            f"/turns/{waiting['id']}/approvals/{pending['toolCallId']}",
            json={"decision": "approve"},
        )
        await stream.all()

    assert waiting["id"] == stream.turn_id
    assert (pending["toolCallId"], pending["name"], pending["step"]) == ("sum", "calculator", 1)
    assert (pending["input"], pending["inputBytes"]) == ({"expression": "6 * 7"}, None)
    assert pending["expiresAt"] == asked.data["expiresAt"]
    assert in_chat == [waiting]
    assert (others, forbidden.status_code) == ([], 403)
    assert decided.status_code == 200
    (ended,) = await listed(user, status=["completed"])
    assert ended == {**await user.turn(stream.turn_id), "pendingToolCalls": []}
    assert await listed(user, status=["awaiting_approval", "running", "queued"]) == []


async def test_the_turns_of_all_branches_of_a_chat_are_listed(user: ApiUser, stack: Stack) -> None:
    question, chat = unique(), await user.create_chat()
    stack.model.add(Script(match=question, text="One."))
    first = (await user.ask(chat, question))["turn"]["id"]
    stack.model.add(Script(match=question, status=400, message="No."))
    failed = await user.request("POST", f"/turns/{first}/regenerate", json={})
    elsewhere = unique()
    stack.model.add(Script(match=elsewhere, text="Else."))
    await user.ask(await user.create_chat(), elsewhere)

    turns = await listed(user, f"/chats/{chat}/turns")

    assert [turn["id"] for turn in turns] == [failed.json()["error"]["turnId"], first]
    assert [turn["status"] for turn in turns] == ["failed", "completed"]
    assert turns[0]["error"]["code"] == "MODEL_REJECTED"
    assert await listed(user, f"/chats/{chat}/turns", sort="createdAt", limit=1) == turns[1:]
    assert len(await listed(user)) == 3
    assert (await user.request("GET", f"/chats/{first}/turns")).status_code == 404
    refused = await user.request("GET", "/turns", params={"status": "asleep"})
    assert refused.status_code == 400
