"""Plans over HTTP: shapes, statuses, validation, pages."""

import uuid
from typing import Any

import httpx
import pytest

from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.plans import STANDARD
from tests.fixtures.stack import Stack

PLAN = {
    *("id", "name", "description", "entitlements", "isDefault", "active", "version"),
    *("createdAt", "updatedAt"),
}
ENTITLEMENTS = {
    *("models", "tools", "rates", "maxMemories", "maxDocuments"),
    *("budgetUsd", "dailyBudgetUsd", "budgetTokens", "dailyBudgetTokens"),
    *("maxDocumentBytes", "maxApiKeys", "maxOpenStreams", "maxWebSearches", "toolApprovals"),
    *("maxThinkingTokens", "maxFiles", "maxFileBytes", "maxStoredBytes"),
}


@pytest.fixture
async def keeper(stack: Stack, member: ApiUser) -> ApiUser:
    """An administrator who speaks through the recording client."""
    await stack.inspection.execute(
        "UPDATE users SET role = 'admin' WHERE id = $1", uuid.UUID(member.id)
    )
    return member


async def new_plan(keeper: ApiUser, **fields: object) -> dict[str, Any]:
    response = await keeper.request("POST", "/admin/plans", json={"name": unique("plan"), **fields})
    assert response.status_code == 201, response.text
    data: dict[str, Any] = response.json()["data"]
    return data


async def change(
    keeper: ApiUser, plan: dict[str, Any], *, if_match: str | None = None, **fields: object
) -> httpx.Response:
    headers = {} if if_match is None else {"If-Match": if_match}
    return await keeper.request("PATCH", f"/admin/plans/{plan['id']}", json=fields, headers=headers)


async def test_a_plan_is_read_from_its_location(keeper: ApiUser) -> None:
    body = {"name": unique("plan")}
    response = await keeper.request("POST", "/admin/plans", json=body)

    read = await keeper.request("GET", response.headers["Location"].removeprefix("/api/v1"))

    assert read.json()["data"] == response.json()["data"]
    assert read.headers["ETag"] == response.headers["ETag"] == '"1"'
    assert (await keeper.request("GET", f"/admin/plans/{uuid.uuid4()}")).status_code == 404


async def test_a_plan_is_created_updated_and_listed(keeper: ApiUser) -> None:
    plan = await new_plan(
        keeper, entitlements={"budgetUsd": "12.50", "models": ["claude-haiku-5-5"]}
    )

    response = await change(
        keeper, plan, if_match='"1"', description="For teams.", entitlements={"maxMemories": 5}
    )

    changed = response.json()["data"]
    assert (set(plan), set(plan["entitlements"])) == (PLAN, ENTITLEMENTS)
    assert plan["entitlements"]["budgetUsd"] == "12.5"
    assert (plan["isDefault"], plan["active"], plan["version"]) == (False, True, 1)
    assert response.headers["etag"] == '"2"'
    assert (changed["description"], changed["version"]) == ("For teams.", 2)
    assert changed["entitlements"]["maxMemories"] == 5
    assert changed["entitlements"]["budgetUsd"] is None
    assert changed["entitlements"]["models"] is None
    newest = await keeper.request("GET", "/admin/plans?sort=-createdAt&limit=1&active=true")
    assert newest.json()["data"] == [changed]


async def test_an_update_of_another_version_is_rejected(keeper: ApiUser) -> None:
    plan = await new_plan(keeper)

    response = await change(keeper, plan, if_match='"7"', name="x")

    check_error(response, 412, "PRECONDITION_FAILED")


async def test_contradicting_the_current_state_is_a_conflict(keeper: ApiUser) -> None:
    plan, other = await new_plan(keeper), await new_plan(keeper)
    standard = {"id": STANDARD}

    for response in (
        await keeper.request("POST", "/admin/plans", json={"name": plan["name"]}),
        await change(keeper, other, name=plan["name"]),
        await change(keeper, standard, active=False),
        await change(keeper, standard, isDefault=False),
    ):
        check_error(response, 409, "CONFLICT")


async def test_a_key_creates_one_plan(keeper: ApiUser) -> None:
    body, headers = {"name": unique("plan")}, {"Idempotency-Key": uuid.uuid4().hex}

    first = await keeper.request("POST", "/admin/plans", json=body, headers=headers)
    again = await keeper.request("POST", "/admin/plans", json=body, headers=headers)
    other = await keeper.request("POST", "/admin/plans", json={"name": "x"}, headers=headers)

    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["data"] == again.json()["data"]
    check_error(other, 409, "IDEMPOTENCY_CONFLICT")


async def test_an_unknown_plan_is_not_found(keeper: ApiUser) -> None:
    check_error(await change(keeper, {"id": uuid.uuid4()}, active=True), 404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "body.name"),
        ({"name": ""}, "body.name"),
        ({"name": "a\x00"}, "body.name"),
        ({"name": "x", "description": "x" * 1001}, "body.description"),
        ({"name": "x", "entitlements": {"maxTokens": 1}}, "body.entitlements.maxTokens"),
        ({"name": "x", "entitlements": {"models": ["gone"]}}, "body.entitlements.models.0"),
        ({"name": "x", "entitlements": {"budgetUsd": "-1"}}, "body.entitlements.budgetUsd"),
        ({"name": "x", "entitlements": {"rates": {"x": 1}}}, "body.entitlements.rates.x"),
        ({"name": "x", "isDefault": "yes"}, "body.isDefault"),
        ({"name": "x", "active": False}, "body.active"),
    ],
    ids=str,
)
async def test_an_invalid_plan_is_rejected_with_the_field(
    keeper: ApiUser, body: dict[str, Any], path: str
) -> None:
    response = await keeper.request("POST", "/admin/plans", json=body)

    check_error(response, 400, "VALIDATION_ERROR")
    assert response.json()["error"]["details"][0]["path"] == path


@pytest.mark.parametrize("query", ["sort=price", "active=maybe", "limit=0", "cursor=x"])
async def test_an_invalid_list_request_is_rejected(keeper: ApiUser, query: str) -> None:
    check_error(await keeper.request("GET", f"/admin/plans?{query}"), 400, "VALIDATION_ERROR")


async def test_pages_hold_every_plan_once_while_more_are_created(keeper: ApiUser) -> None:
    plans = [(await new_plan(keeper))["id"] for _ in range(3)]

    seen: list[str] = []
    cursor = ""
    for _ in range(3):
        path = f"/admin/plans?sort=-createdAt&limit=1{cursor}"
        body = (await keeper.request("GET", path)).json()
        seen += [plan["id"] for plan in body["data"]]
        cursor = f"&cursor={body['meta']['nextCursor']}"
        await new_plan(keeper)

    assert seen == plans[::-1]


async def test_members_can_neither_read_nor_change_plans(member: ApiUser) -> None:
    for response in (
        await member.request("GET", "/admin/plans"),
        await member.request("POST", "/admin/plans", json={"name": "Mine"}),
        await change(member, {"id": STANDARD}, description="Mine"),
    ):
        check_error(response, 403, "FORBIDDEN")


def check_error(response: httpx.Response, status: int, code: str) -> None:
    assert response.status_code == status, response.text
    assert response.json()["error"]["code"] == code
