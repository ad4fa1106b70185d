"""What operators see of turns in Temporal: attributes, summaries, details and memos."""

import json
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from schema.ids import (
    DocumentId,
    ingestion_workflow_id,
)
from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.stack import Stack
from tests.fixtures.tool_settings import changed_settings
from tests.integration.test_histories import history_of, texts_in
from tests.running_everturn.waiting import eventually

REPOSITORY = str(Path(__file__).parents[2])
WRONG = ToolCall(id="sum", name="calculator", input={"expression": "6 *"})


async def attributes_of(stack: Stack, turn_id: str) -> dict[str, Any]:
    described = await stack.temporal.get_workflow_handle(f"turn-{turn_id}").describe()
    return {pair.key.name: pair.value for pair in described.typed_search_attributes}


async def details_of(stack: Stack, turn_id: str) -> str:
    """Return the current details, which Temporal asks a worker for."""
    handle = stack.temporal.get_workflow_handle(f"turn-{turn_id}")
    metadata: Any = await handle.query("__temporal_workflow_metadata")
    return str(getattr(metadata, "current_details", None) or metadata.get("currentDetails", ""))


async def texts_of(stack: Stack, turn_id: str) -> list[str]:
    """Return every text of a turn's history; those of payloads are JSON."""
    return list(texts_in(json.loads(await history_of(stack, turn_id))))


async def found(stack: Stack, query: str) -> list[str]:
    return [run.id async for run in stack.temporal.list_workflows(query)]


async def test_a_turn_whose_tool_failed_is_found_without_opening_it(
    user: ApiUser, stack: Stack
) -> None:
    question = unique()
    stack.model.add(Script(match=question, tool_calls=(WRONG,)))
    stack.model.add(Script(match=question, text="I can't."))
    turn = (await user.ask(await user.create_chat(), question))["turn"]
    handle = stack.temporal.get_workflow_handle(f"turn-{turn['id']}")
    await handle.result()
    plan = (await user.request("GET", "/subscription")).json()["data"]["plan"]["name"]

    query = f"EverturnUserId = '{user.id}' AND EverturnFailedTools = 'calculator'"
    listed = await eventually(lambda: found(stack, query), bool)

    attributes = await attributes_of(stack, turn["id"])
    assert listed == [handle.id]
    assert attributes["EverturnStatus"] == "completed"
    assert attributes["EverturnFailedTools"] == ["calculator"]
    assert attributes["EverturnPlan"] == plan
    assert attributes["EverturnCostUsd"] == float(turn["costUsd"]) > 0
    assert "EverturnErrorCode" not in attributes
    assert '"calculator · step 1"' in await texts_of(stack, turn["id"])


async def test_a_failed_turn_has_its_error_code_and_no_stack_trace(
    user: ApiUser, stack: Stack
) -> None:
    question = unique()
    stack.model.add(Script(match=question, status=400, message="No."))
    events = await user.events_of(await user.create_chat(), question)
    turn_id = events[0].data["turnId"]
    await eventually(
        lambda: attributes_of(stack, turn_id),
        lambda attributes: attributes["EverturnStatus"] == "failed",
    )

    history = await history_of(stack, turn_id)

    assert (await attributes_of(stack, turn_id))["EverturnErrorCode"] == "MODEL_REJECTED"
    assert "stackTrace" not in history
    assert REPOSITORY not in "\n".join(texts_in(json.loads(history)))


async def test_a_turn_that_waits_for_approval_is_found_and_says_for_what_and_until_when(
    user: ApiUser, admin: ApiUser, stack: Stack
) -> None:
    question = unique()
    right = ToolCall(id="sum", name="calculator", input={"expression": "6 * 7"})
    stack.model.add(Script(match=question, tool_calls=(right,)))
    stack.model.add(Script(match=question, text="42."))
    chat = await user.create_chat()
    async with (
        changed_settings(admin, "calculator", approval="ask"),
        user.stream(chat, question) as stream,
    ):
        await stream.until(lambda event: event.data.get("status") == "awaiting_approval")
        turn_id = stream.turn_id
        query = f"EverturnUserId = '{user.id}' AND EverturnStatus = 'awaiting_approval'"
        listed = await eventually(lambda: found(stack, query), bool)
        waiting = await details_of(stack, turn_id)
        body = {"decision": "approve"}
        await user.request("POST", f"/turns/{turn_id}/approvals/sum", json=body)
        await stream.all()
    await stack.temporal.get_workflow_handle(f"turn-{turn_id}").result()

    assert listed == [f"turn-{turn_id}"]
    assert waiting.startswith("waiting for approval of calculator · step 1, until 20")
    texts = "\n".join(await texts_of(stack, turn_id))
    assert "approval of calculator · step 1, until 20" in texts
    assert (await attributes_of(stack, turn_id))["EverturnStatus"] == "completed"
    assert (await details_of(stack, turn_id)).startswith("completed · 2 steps · ")


async def test_a_running_turn_says_what_it_does(user: ApiUser, stack: Stack) -> None:
    question = unique()
    stack.model.add(Script(match=question, pieces=("One, ", "two."), hold=question, hold_after=1))
    chat = await user.create_chat()
    async with user.stream(chat, question) as stream:
        await stream.until_text("One, ")

        details = await details_of(stack, stream.turn_id)

        stack.model.release(question)
        await stream.all()
    assert details == "calling claude-haiku-5-5 · step 1"


async def test_a_run_names_the_place_where_administrators_see_all_of_it(
    user: ApiUser, stack: Stack
) -> None:
    first, second = unique(), unique()
    stack.model.add(Script(match=first, text="First.", hold=first))
    stack.model.add(Script(match=second, text="Second."))
    chat = await user.create_chat()
    async with user.stream(chat, first) as stream:
        await stack.model.wait_for_request(match=first)
        async with user.stream(chat, second, ifBusy="enqueue") as following:
            stack.model.release(first)
            await following.all()

    for turn_id in (stream.turn_id, following.turn_id):
        described = await stack.temporal.get_workflow_handle(f"turn-{turn_id}").describe()

        view = f"/api/v1/admin/turns/{turn_id}"
        assert await described.memo_value("adminView", type_hint=str) == view
        assert await described.static_summary() == "turn · claude-haiku-5-5"
        details = await described.static_details()
        assert details is not None
        assert f"`everturn admin turn {turn_id}` or {view}" in details
        assert user.id in details


async def test_an_ingestion_names_its_user_and_the_command_that_shows_more(
    user: ApiUser, stack: Stack
) -> None:
    body = {"title": "Notes", "content": "Some notes."}
    document = (await user.request("POST", "/knowledge", json=body)).json()["data"]["id"]

    run = ingestion_workflow_id(DocumentId(UUID(document)), 1)
    details = await (await stack.temporal.get_workflow_handle(run).describe()).static_details()

    assert details is not None
    assert f"User `{user.id}`" in details
    assert "everturn admin knowledge list" in details


def documented_queries() -> list[str]:
    page = (Path(REPOSITORY) / "docs" / "finding-turns.md").read_text()
    spans = re.findall(r"`([^`\n]+)`", page)
    return [span for span in spans if re.match(r"\w+ (=|>|<|IS) ", span)]


@pytest.mark.parametrize("query", documented_queries())
async def test_temporal_takes_a_documented_query(stack: Stack, query: str) -> None:
    counted = await stack.temporal.count_workflows(query)

    assert counted.count >= 0
