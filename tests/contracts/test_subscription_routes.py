"""Subscriptions over HTTP: the user's own plan and usage, and assigning plans."""

import uuid
from typing import Any

import httpx
import pytest

from tests.fakes.scripted_model.scripts import Script
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.plans import STANDARD, make_plan
from tests.fixtures.stack import Stack

USAGE = {
    *("period", "usage", "costUsd", "turns", "messages", "toolCalls", "memories", "documents"),
    "cacheSavedUsd",
    "webSearches",
    "budget",
}


async def give(
    recorded: httpx.AsyncClient,
    admin: ApiUser,
    user_id: object,
    *,
    if_match: str | None = None,
    **body: object,
) -> httpx.Response:
    """Ask for a plan for a user, as an administrator who speaks through the recording client."""
    headers = admin.headers if if_match is None else {**admin.headers, "If-Match": if_match}
    return await recorded.put(f"/admin/users/{user_id}/subscription", json=body, headers=headers)


async def read(member: ApiUser, path: str = "/subscription") -> dict[str, Any]:
    response = await member.request("GET", path)
    assert response.status_code == 200, response.text
    data: dict[str, Any] = response.json()["data"]
    return data


async def test_every_user_has_a_plan(member: ApiUser) -> None:
    subscription = await read(member)

    assert set(subscription) == {"plan", "period", "since"}
    assert set(subscription["plan"]) == {"id", "name", "description", "entitlements"}
    assert subscription["plan"]["id"] == STANDARD
    assert set(subscription["period"]) == {"start", "end"}
    assert subscription["since"] is None


async def test_usage_reports_the_used_and_remaining_amounts(member: ApiUser, stack: Stack) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Yes."))
    turn = (await member.ask(await member.create_chat(), question))["turn"]

    usage = await read(member, "/subscription/usage")

    assert set(usage) == USAGE
    assert (usage["turns"], usage["messages"], usage["toolCalls"]) == (1, 1, 0)
    assert (usage["costUsd"], usage["usage"]) == (turn["costUsd"], turn["usage"])
    assert usage["memories"] == {"used": 0, "limit": 10_000}
    assert usage["documents"] == {"used": 0, "limit": 1_000}
    assert usage["webSearches"] == {"used": 0, "limit": None}
    budget = usage["budget"]
    assert set(budget) == {"limitUsd", "leftUsd", "day", "month"}
    assert (budget["limitUsd"], budget["leftUsd"]) == (None, None)
    tokens = sum(turn["usage"].values())
    for window in ("day", "month"):
        assert set(budget[window]) == {"startsAt", "resetsAt", "usd", "tokens"}
        assert budget[window]["usd"] == unlimited(turn["costUsd"], reserved="0")
        assert budget[window]["tokens"] == unlimited(tokens, reserved=0)
    assert budget["month"]["resetsAt"] == usage["period"]["end"]
    assert usage["period"] == (await read(member))["period"]


def unlimited(used: object, *, reserved: object) -> dict[str, object]:
    return {"limit": None, "used": used, "reserved": reserved, "left": None}


async def test_a_month_names_a_period_of_usage(member: ApiUser) -> None:
    usage = await read(member, "/subscription/usage?period=2026-01")

    assert usage["period"] == {
        "start": "2026-01-01T00:00:00.000000Z",
        "end": "2026-02-01T00:00:00.000000Z",
    }
    assert (usage["turns"], usage["costUsd"]) == (0, "0")
    assert usage["budget"] == {"limitUsd": None, "leftUsd": None, "day": None, "month": None}


@pytest.mark.parametrize("period", ["", "2026", "2026-13", "2026-01-01", "1999-01", "9999-12", "x"])
async def test_invalid_months_are_rejected(member: ApiUser, period: str) -> None:
    response = await member.request("GET", "/subscription/usage", params={"period": period})

    check_error(response, 400, "VALIDATION_ERROR")
    assert response.json()["error"]["details"][0]["path"] == "query.period"


async def test_an_assigned_plan_applies_from_the_next_request(
    recorded: httpx.AsyncClient, member: ApiUser, admin: ApiUser
) -> None:
    plan = await make_plan(admin, budgetUsd="3", models=["claude-opus-5-5"])

    response = await give(
        recorded, admin, member.id, planId=plan["id"], startedAt="2026-01-31T09:00:00Z"
    )

    assert response.status_code == 200, response.text
    assert response.headers["etag"] == '"1"'
    assignment = response.json()["data"]
    assert set(assignment) == {"userId", "planId", "startedAt", "updatedAt", "version"}
    assert (assignment["userId"], assignment["planId"]) == (member.id, plan["id"])
    subscription = await read(member)
    assert subscription["plan"]["id"] == plan["id"]
    assert subscription["since"] == "2026-01-31T09:00:00.000000Z"
    usage = await read(member, "/subscription/usage")
    assert (usage["budget"]["limitUsd"], usage["budget"]["leftUsd"]) == ("3", "3")
    assert usage["budget"]["month"]["usd"]["limit"] == "3"
    chat = await member.create_chat()
    refused = await member.post(chat, "Hi", model="claude-haiku-5-5")
    check_error(refused, 403, "FORBIDDEN")
    assert "plan" in refused.json()["error"]["message"]


async def test_a_plan_is_assigned_only_for_the_expected_version(
    recorded: httpx.AsyncClient, member: ApiUser, admin: ApiUser
) -> None:
    first, second = await make_plan(admin), await make_plan(admin)
    early = await give(recorded, admin, member.id, if_match='"1"', planId=first["id"])
    await give(recorded, admin, member.id, planId=first["id"])

    right = await give(recorded, admin, member.id, if_match='"1"', planId=second["id"])
    late = await give(recorded, admin, member.id, if_match='"1"', planId=first["id"])

    assert right.status_code == 200
    check_error(early, 412, "PRECONDITION_FAILED")
    check_error(late, 412, "PRECONDITION_FAILED")


async def test_invalid_subscriptions_are_rejected(
    recorded: httpx.AsyncClient, member: ApiUser, admin: ApiUser
) -> None:
    inactive = await make_plan(admin)
    await admin.request("PATCH", f"/admin/plans/{inactive['id']}", json={"active": False})
    unknown, nothing = uuid.uuid4(), str(uuid.uuid4())

    check_error(await give(recorded, admin, unknown, planId=STANDARD), 404, "NOT_FOUND")
    check_error(await give(recorded, admin, member.id, planId=nothing), 404, "NOT_FOUND")
    check_error(await give(recorded, admin, member.id, planId=inactive["id"]), 409, "CONFLICT")


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "body.planId"),
        ({"planId": "x"}, "body.planId"),
        ({"planId": STANDARD, "startedAt": "2100-01-01T00:00:00Z"}, "body.startedAt"),
        ({"planId": STANDARD, "startedAt": "2026-01-01T00:00:00"}, "body.startedAt"),
        ({"planId": STANDARD, "startedAt": "9999-12-31T23:59:59-14:00"}, "body.startedAt"),
        ({"planId": STANDARD, "startedAt": 1}, "body.startedAt"),
        ({"planId": STANDARD, "until": "2100-01-01T00:00:00Z"}, "body.until"),
    ],
    ids=str,
)
async def test_an_invalid_assignment_is_rejected_with_the_field(
    recorded: httpx.AsyncClient, admin: ApiUser, body: dict[str, Any], path: str
) -> None:
    response = await give(recorded, admin, admin.id, **body)

    check_error(response, 400, "VALIDATION_ERROR")
    assert response.json()["error"]["details"][0]["path"] == path


async def test_members_cannot_assign_plans_and_see_only_their_own(
    recorded: httpx.AsyncClient, member: ApiUser, other_user: ApiUser, admin: ApiUser
) -> None:
    plan = await make_plan(admin, budgetUsd="1")
    await give(recorded, admin, other_user.id, planId=plan["id"])

    for user_id in (member.id, other_user.id):
        refused = await give(recorded, member, user_id, planId=plan["id"])
        check_error(refused, 403, "FORBIDDEN")
    assert (await read(member))["plan"]["id"] == STANDARD


def check_error(response: httpx.Response, status: int, code: str) -> None:
    assert response.status_code == status, response.text
    assert response.json()["error"]["code"] == code
