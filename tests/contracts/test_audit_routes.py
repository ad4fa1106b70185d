"""The audit log over HTTP: entries, filters, pages."""

import httpx
import pytest

from tests.fixtures.api_user import ApiUser
from tests.fixtures.plans import STANDARD, give_plan, make_plan

ENTRY = {
    *("id", "actorType", "actorId", "action", "resourceType", "resourceId", "subjectId"),
    *("requestId", "address", "details", "createdAt"),
}


async def test_audit_entries_are_listed_newest_first(
    recorded: httpx.AsyncClient, admin: ApiUser
) -> None:
    plan = await make_plan(admin)
    await admin.request("PATCH", f"/admin/plans/{plan['id']}", json={"description": "Better."})
    params = {"resourceType": "plan", "resourceId": plan["id"], "actorId": admin.id}

    response = await recorded.get("/admin/audit", params=params, headers=admin.headers)

    changed, created = response.json()["data"]
    assert set(changed) == ENTRY
    assert (created["action"], changed["action"]) == ("plan.created", "plan.changed")
    assert (changed["actorType"], changed["actorId"]) == ("admin", admin.id)
    assert changed["details"] == {"changed": ["description"]}


async def test_actions_may_be_repeated_and_are_paginated(
    recorded: httpx.AsyncClient, admin: ApiUser, member: ApiUser
) -> None:
    plan = await make_plan(admin)
    await give_plan(admin, member, plan["id"])
    await give_plan(admin, member, STANDARD)
    params: dict[str, str | int | list[str]] = {
        "actorId": admin.id,
        "action": ["user.plan_assigned", "plan.created"],
        "limit": 2,
    }

    first = await recorded.get("/admin/audit", params=params, headers=admin.headers)
    params["cursor"] = first.json()["meta"]["nextCursor"]
    second = await recorded.get("/admin/audit", params=params, headers=admin.headers)

    entries = first.json()["data"] + second.json()["data"]
    assert [entry["action"] for entry in entries] == [
        "user.plan_assigned",
        "user.plan_assigned",
        "plan.created",
    ]
    assert entries[0]["subjectId"] == member.id
    assert entries[0]["details"]["planId"] == STANDARD
    assert second.json()["meta"]["nextCursor"] is None


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"action": "x"}, "query.action.0"),
        ({"resourceType": "x"}, "query.resourceType"),
        ({"actorId": "x"}, "query.actorId"),
        ({"resourceId": ""}, "query.resourceId"),
        ({"resourceId": "x" * 201}, "query.resourceId"),
        ({"requestId": "\x00"}, "query.requestId"),
        ({"from": "x"}, "query.from"),
        ({"from": "2026-02-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "query.to"),
        ({"limit": "0"}, "query.limit"),
        ({"cursor": "x"}, "query.cursor"),
    ],
    ids=str,
)
async def test_an_invalid_query_is_rejected_with_the_parameter(
    recorded: httpx.AsyncClient, admin: ApiUser, params: dict[str, str], path: str
) -> None:
    response = await recorded.get("/admin/audit", params=params, headers=admin.headers)

    assert response.status_code == 400, response.text
    assert response.json()["error"]["details"][0]["path"] == path


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_no_method_changes_the_log(
    recorded: httpx.AsyncClient, admin: ApiUser, method: str
) -> None:
    response = await recorded.request(method, "/admin/audit", headers=admin.headers)

    assert response.status_code == 405


async def test_members_cannot_read_the_audit_log(member: ApiUser) -> None:
    assert (await member.request("GET", "/admin/audit")).status_code == 403
