"""Turns as administrators see them: found, inspected, stopped, run again, and all of it noted."""

from typing import Any

from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.stack import Stack


async def listed(admin: ApiUser, **params: str) -> list[dict[str, Any]]:
    response = await admin.request("GET", "/admin/turns", params=params)
    assert response.status_code == 200, response.text
    data: list[dict[str, Any]] = response.json()["data"]
    return data


async def audited(stack: Stack, turn: str) -> list[tuple[str, str, str]]:
    rows = await stack.inspection.rows(
        "SELECT action, actor_id::text, subject_id::text FROM audit_log "
        "WHERE resource_id = $1 ORDER BY id",
        turn,
    )
    return [(row["action"], row["actor_id"], row["subject_id"]) for row in rows]


async def test_turns_are_found_by_their_search_attributes(
    admin: ApiUser, user: ApiUser, other_user: ApiUser, stack: Stack
) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Yes.", repeat=2))
    chat = await user.create_chat()
    first = (await user.ask(chat, question))["turn"]
    second = (await other_user.ask(await other_user.create_chat(), question))["turn"]

    mine = await listed(admin, userId=user.id)
    in_chat = await listed(admin, chatId=chat, status="completed", model=first["model"])
    failed = await listed(admin, userId=user.id, status="failed")
    coded = await listed(admin, userId=user.id, errorCode="INTERNAL")
    later = await listed(admin, userId=user.id, **{"from": "2100-01-01T00:00:00Z"})
    earlier = await listed(admin, userId=user.id, to="2000-01-01T00:00:00Z")
    newest = await listed(admin, limit="1")

    assert [turn["id"] for turn in mine] == [first["id"]]
    assert mine[0]["userId"] == user.id
    assert in_chat == mine
    assert failed == coded == later == earlier == []
    assert newest[0]["id"] >= second["id"]


async def test_an_inspected_turn_has_all_its_events_and_the_inspection_is_audited(
    admin: ApiUser, user: ApiUser, stack: Stack
) -> None:
    question = unique()
    call = ToolCall(name="calculator", input={"expression": "6 * 7"})
    stack.model.add(Script(match=question, tool_calls=(call,)))
    stack.model.add(Script(match=question, text="It is 42."))
    events = await user.events_of(await user.create_chat(), question)
    turn = next(event.data["turnId"] for event in events if event.name == "turn")

    response = await admin.request("GET", f"/admin/turns/{turn}")

    assert response.status_code == 200, response.text
    found = response.json()["data"]
    assert (found["turn"]["id"], found["turn"]["userId"]) == (turn, user.id)
    assert found["workflowId"] == f"turn-{turn}"
    assert [message["content"] for message in found["messages"]] == [question, "It is 42."]
    assert [step["step"] for step in found["steps"]] == [1, 2]
    assert [(call["name"], call["output"]) for call in found["toolCalls"]] == [("calculator", "42")]
    assert len(found["charges"]) == 2
    assert sum(float(charge["costUsd"]) for charge in found["charges"]) > 0
    assert found["supersededBy"] is None
    assert await audited(stack, turn) == [("turn.read", admin.id, user.id)]


async def test_an_administrator_stops_a_turn(admin: ApiUser, user: ApiUser, stack: Stack) -> None:
    question = unique()
    stack.model.add(Script(match=question, pieces=("One, ", "two."), hold=question, hold_after=1))
    chat = await user.create_chat()
    async with user.stream(chat, question) as stream:
        await stream.until_text("One, ")
        response = await admin.request("POST", f"/admin/turns/{stream.turn_id}/cancel")
        events = await stream.all()

    assert response.status_code == 202
    assert events[-1].data["status"] == "cancelled"
    assert await audited(stack, stream.turn_id) == [("turn.cancelled", admin.id, user.id)]


async def test_an_administrator_runs_a_turn_again_in_its_owners_name(
    admin: ApiUser, user: ApiUser, stack: Stack
) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="First."))
    stack.model.add(Script(match=question, text="Second."))
    chat = await user.create_chat()
    turn = (await user.ask(chat, question))["turn"]["id"]

    response = await admin.request("POST", f"/admin/turns/{turn}/rerun")
    rerun = response.json()["data"]
    await user.events(rerun["id"])
    found = (await admin.request("GET", f"/admin/turns/{turn}")).json()["data"]

    assert response.status_code == 202
    assert rerun["regenerates"] == turn
    assert [message["content"] for message in await user.messages(chat)] == [question, "Second."]
    assert found["supersededBy"] == rerun["id"]
    assert (await audited(stack, turn))[0] == ("turn.rerun", admin.id, user.id)


async def test_an_unknown_turn_is_not_found(admin: ApiUser) -> None:
    missing = "0190b5a8-0000-7000-8000-000000000000"
    for method, path in (("GET", ""), ("POST", "/cancel"), ("POST", "/rerun")):
        response = await admin.request(method, f"/admin/turns/{missing}{path}")
        assert response.status_code == 404, path


async def test_an_administrator_reaches_nothing_of_others_outside_administration(
    admin: ApiUser, user: ApiUser, stack: Stack
) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Mine."))
    chat = await user.create_chat()
    turn = (await user.ask(chat, question))["turn"]["id"]

    for method, path in (
        ("GET", f"/chats/{chat}"),
        ("DELETE", f"/chats/{chat}"),
        ("GET", f"/chats/{chat}/messages"),
        ("GET", f"/turns/{turn}"),
        ("GET", f"/turns/{turn}/events"),
        ("POST", f"/turns/{turn}/cancel"),
    ):
        assert (await admin.request(method, path)).status_code == 403, (method, path)
