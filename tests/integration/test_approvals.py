"""Tool calls that wait for a person: asked, approved, denied, edited, forgotten."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Self
from uuid import UUID

import pytest
from temporalio.testing import ActivityEnvironment

from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.event_stream import Event
from tests.fixtures.stack import Stack
from tests.fixtures.tool_settings import changed_settings

SUM = ToolCall(id="sum", name="calculator", input={"expression": "6 * 7"})


@pytest.fixture
async def asking(admin: ApiUser) -> AsyncIterator[None]:
    """The calculator waits for approval."""
    async with changed_settings(admin, "calculator", approval="ask"):
        yield


async def decide(
    person: ApiUser, turn_id: str, call_id: str = "sum", **body: object
) -> tuple[int, Any]:
    response = await person.request("POST", f"/turns/{turn_id}/approvals/{call_id}", json=body)
    return response.status_code, response.json()


def _is_asked(event: Event) -> bool:
    return event.name == "tool_call" and event.data["status"] == "awaiting_approval"


class Asked:
    """A turn whose calculator call waits for its user."""

    def __init__(self, stack: Stack, person: ApiUser, *calls: ToolCall) -> None:
        self.question = unique()
        self.turn_id = ""
        self._stack = stack
        self._person = person
        stack.model.add(Script(match=self.question, tool_calls=calls or (SUM,)))
        stack.model.add(Script(match=self.question, text="I see."))
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.chat = await self._person.create_chat()
        self.stream = await self._open.enter_async_context(
            self._person.stream(self.chat, self.question)
        )
        self.asked = await self.stream.until(_is_asked)
        self.turn_id = self.stream.turn_id
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def rest(self) -> list[Event]:
        return await self.stream.all()

    def result(self) -> dict[str, Any]:
        """Return the call's result as the model got it."""
        body = self._stack.model.requests_matching(self.question)[1].body
        assert body is not None
        result: dict[str, Any] = body["messages"][-1]["content"][0]
        return result


def last_call(events: list[Event]) -> dict[str, Any]:
    return [event.data for event in events if event.name == "tool_call"][-1]


@pytest.mark.usefixtures("asking")
async def test_an_approved_call_is_executed(user: ApiUser, stack: Stack) -> None:
    async with Asked(stack, user) as asked:
        assert asked.asked.data["expiresAt"]
        turn = (await user.request("GET", f"/turns/{asked.turn_id}")).json()["data"]
        assert turn["status"] == "awaiting_approval"

        status, body = await decide(user, asked.turn_id, decision="approve")
        events = await asked.rest()

    assert (status, body["data"]["decision"]) == (200, "approved")
    assert (last_call(events)["status"], last_call(events)["output"]) == ("completed", "42")
    assert events[-1].data["status"] == "completed"
    assert asked.result()["content"] == "42"


@pytest.mark.usefixtures("asking")
async def test_a_denied_call_is_not_executed_and_the_model_learns_why(
    user: ApiUser, stack: Stack
) -> None:
    async with Asked(stack, user) as asked:
        status, _ = await decide(user, asked.turn_id, decision="deny", reason="Do it by head.")
        events = await asked.rest()

    assert status == 200
    assert last_call(events)["status"] == "denied"
    assert "Do it by head." in last_call(events)["output"]
    assert asked.result()["is_error"]
    assert "Do it by head." in asked.result()["content"]
    assert events[-1].data["status"] == "completed"


@pytest.mark.usefixtures("asking")
async def test_an_edited_call_is_executed_with_the_edited_input(
    user: ApiUser, stack: Stack
) -> None:
    async with Asked(stack, user) as asked:
        await decide(user, asked.turn_id, decision="approve", input={"expression": "1 + 1"})
        events = await asked.rest()

    assert last_call(events)["input"] == {"expression": "1 + 1"}
    assert last_call(events)["output"] == "2"
    content = asked.result()["content"]
    assert content.startswith('The user changed the input of this call to {"expression": "1 + 1"}')
    assert content.endswith("2")


@pytest.mark.usefixtures("asking")
async def test_an_edit_that_breaks_the_tools_input_schema_is_rejected(
    user: ApiUser, stack: Stack
) -> None:
    async with Asked(stack, user) as asked:
        status, body = await decide(user, asked.turn_id, decision="approve", input={"sum": 1})
        again, _ = await decide(user, asked.turn_id, decision="approve")
        await asked.rest()

    assert (status, body["error"]["details"][0]["path"]) == (400, "body.input")
    assert again == 200


@pytest.mark.usefixtures("asking")
async def test_a_decision_remembered_for_a_chat_is_not_asked_for_again(
    user: ApiUser, stack: Stack
) -> None:
    async with Asked(stack, user) as asked:
        await decide(user, asked.turn_id, decision="approve", rememberForChat=True)
        await asked.rest()
    question = unique()
    stack.model.add(Script(match=question, tool_calls=(SUM,)))
    stack.model.add(Script(match=question, text="Again."))

    events = await user.events_of(asked.chat, question)

    statuses = [event.data["status"] for event in events if event.name == "tool_call"]
    assert statuses == ["requested", "running", "completed"]
    async with Asked(stack, user) as elsewhere:
        await decide(user, elsewhere.turn_id, decision="deny")
        await elsewhere.rest()


@pytest.mark.usefixtures("asking")
async def test_only_the_owner_decides(
    user: ApiUser, other_user: ApiUser, admin: ApiUser, stack: Stack
) -> None:
    async with Asked(stack, user) as asked:
        refused = [
            (await decide(person, asked.turn_id, decision="approve"))[0]
            for person in (other_user, admin)
        ]
        unknown, _ = await decide(user, asked.turn_id, "other", decision="approve")
        await decide(user, asked.turn_id, decision="approve")
        await asked.rest()

    assert refused == [403, 403]
    assert unknown == 404


@pytest.mark.usefixtures("asking")
async def test_a_decision_is_final_and_can_be_repeated(user: ApiUser, stack: Stack) -> None:
    async with Asked(stack, user) as asked:
        answers = await asyncio.gather(
            *(decide(user, asked.turn_id, decision=what) for what in ("approve", "deny", "approve"))
        )
        await asked.rest()
        late, _ = await decide(user, asked.turn_id, decision="approve")

    statuses = sorted(status for status, _ in answers)
    assert statuses in ([200, 200, 409], [200, 409, 409])
    assert late in {200, 409}


async def test_a_call_that_is_not_awaiting_approval_cannot_be_decided(
    user: ApiUser, stack: Stack
) -> None:
    question = unique()
    stack.model.add(Script(match=question, tool_calls=(SUM,)))
    stack.model.add(Script(match=question, text="Done."))
    events = await user.events_of(await user.create_chat(), question)

    status, body = await decide(user, str(events[0].data["turnId"]), decision="approve")

    assert (status, body["error"]["code"]) == (409, "CONFLICT")


@pytest.mark.usefixtures("asking")
async def test_a_turn_that_waits_can_be_stopped(user: ApiUser, stack: Stack) -> None:
    async with Asked(stack, user) as asked:
        response = await user.request("POST", f"/turns/{asked.turn_id}/cancel")
        events = await asked.rest()
        late, _ = await decide(user, asked.turn_id, decision="approve")

    assert response.status_code == 202
    assert events[-1].data["status"] == "cancelled"
    assert last_call(events)["status"] == "failed"
    assert late == 409


@pytest.mark.usefixtures("asking")
async def test_one_of_two_calls_waits_and_the_other_runs(user: ApiUser, stack: Stack) -> None:
    now = ToolCall(id="now", name="datetime", input={"timezone": "Europe/Rome"})
    async with Asked(stack, user, SUM, now) as asked:
        await decide(user, asked.turn_id, decision="deny")
        await asked.rest()

    rows = await stack.inspection.rows(
        "SELECT tool_call_id, status FROM tool_calls WHERE turn_id = $1 ORDER BY position",
        UUID(asked.turn_id),
    )
    assert [tuple(row.values()) for row in rows] == [("sum", "denied"), ("now", "completed")]


@pytest.mark.usefixtures("asking")
async def test_a_decision_that_did_not_reach_the_workflow_is_delivered_by_the_sweep(
    user: ApiUser, stack: Stack
) -> None:
    async with Asked(stack, user) as asked:
        await stack.inspection.execute(
            "UPDATE tool_calls SET decision = 'approved', decided_at = now() - interval '1 minute' "
            "WHERE turn_id = $1",
            UUID(asked.turn_id),
        )
        delivery = await ActivityEnvironment().run(stack.activities.sweep.deliver_decisions)
        events = await asked.rest()

    assert delivery.delivered >= 1
    assert last_call(events)["output"] == "42"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"decision": "maybe"},
        {"decision": "deny", "input": {}},
        {"decision": "deny", "rememberForChat": True},
        {"decision": "approve", "reason": "x"},
        {"decision": "deny", "reason": ""},
    ],
)
async def test_an_invalid_decision_is_rejected(user: ApiUser, body: dict[str, object]) -> None:
    path = "/turns/01900000-0000-7000-8000-000000000001/approvals/sum"

    response = await user.request("POST", path, json=body)

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "VALIDATION_ERROR"
