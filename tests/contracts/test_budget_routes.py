"""Budgets of users, of API keys and of the installation over HTTP: shapes, statuses, versions."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from tests.fixtures.api_user import ApiUser
from tests.fixtures.plans import make_plan
from tests.fixtures.stack import Stack

LIMITS = {"budgetUsd", "dailyBudgetUsd", "budgetTokens", "dailyBudgetTokens"}
USE = {*LIMITS, "day", "month"}
OF_USER = {*USE, "userId", "source", "version", "updatedAt"}
OF_INSTALLATION = {*USE, "version", "updatedAt"}
INSTALLATION = "/admin/budget"


@pytest.fixture
async def keeper(stack: Stack, member: ApiUser) -> ApiUser:
    """An administrator who speaks through the recording client."""
    await stack.inspection.execute("UPDATE users SET role = 'admin' WHERE id = $1", UUID(member.id))
    return member


@pytest.fixture
async def no_cap(stack: Stack) -> AsyncIterator[None]:
    """An installation without a budget, before the test and after it."""
    await stack.inspection.execute("DELETE FROM budgets WHERE scope = 'installation'")
    yield
    await stack.inspection.execute("DELETE FROM budgets WHERE scope = 'installation'")


async def ask(
    keeper: ApiUser, method: str, path: str, *, if_match: str | None = None, **limits: object
) -> httpx.Response:
    headers = {} if if_match is None else {"If-Match": if_match}
    body = {"json": limits} if method == "PUT" else {}
    return await keeper.request(method, path, headers=headers, **body)


def of(user: ApiUser) -> str:
    return f"/admin/users/{user.id}/budget"


def data(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()["data"]
    return found


def check_error(response: httpx.Response, status: int, code: str) -> None:
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


async def test_a_user_has_the_limits_of_their_plan(
    keeper: ApiUser, user: ApiUser, admin: ApiUser
) -> None:
    plan = await make_plan(admin, budgetUsd="5", dailyBudgetTokens=1000)
    await admin.request("PUT", f"/admin/users/{user.id}/subscription", json={"planId": plan["id"]})

    response = await ask(keeper, "GET", of(user))

    budget = data(response)
    assert set(budget) == OF_USER
    assert (budget["source"], budget["version"], budget["updatedAt"]) == ("plan", 0, None)
    assert response.headers["ETag"] == '"0"'
    assert {name: budget[name] for name in LIMITS} == {
        "budgetUsd": "5",
        "dailyBudgetUsd": None,
        "budgetTokens": None,
        "dailyBudgetTokens": 1000,
    }
    assert budget["month"]["usd"] == {"limit": "5", "used": "0", "reserved": "0", "left": "5"}
    assert budget["day"]["tokens"] == {"limit": 1000, "used": 0, "reserved": 0, "left": 1000}


async def test_limits_of_a_user_replace_all_of_the_plans_until_they_are_removed(
    keeper: ApiUser, user: ApiUser, admin: ApiUser
) -> None:
    plan = await make_plan(admin, budgetUsd="5", dailyBudgetTokens=1000)
    await admin.request("PUT", f"/admin/users/{user.id}/subscription", json={"planId": plan["id"]})

    written = await ask(keeper, "PUT", of(user), dailyBudgetUsd="0.5")
    read = await ask(keeper, "GET", of(user))
    removed = await ask(keeper, "DELETE", of(user))
    again = await ask(keeper, "DELETE", of(user))
    after = data(await ask(keeper, "GET", of(user)))

    budget = data(written)
    assert set(budget) == OF_USER
    assert (budget["source"], budget["version"]) == ("user", 1)
    assert written.headers["ETag"] == read.headers["ETag"] == '"1"'
    assert data(read) == budget
    assert {name: budget[name] for name in LIMITS} == {
        "budgetUsd": None,
        "dailyBudgetUsd": "0.5",
        "budgetTokens": None,
        "dailyBudgetTokens": None,
    }
    assert (removed.status_code, again.status_code) == (204, 204)
    assert (after["source"], after["version"], after["budgetUsd"]) == ("plan", 0, "5")


@pytest.mark.usefixtures("no_cap")
async def test_the_installation_has_limits_until_they_are_removed(keeper: ApiUser) -> None:
    before = data(await ask(keeper, "GET", INSTALLATION))
    written = await ask(keeper, "PUT", INSTALLATION, budgetUsd="1000000", dailyBudgetTokens=10**12)
    read = await ask(keeper, "GET", INSTALLATION)
    removed = await ask(keeper, "DELETE", INSTALLATION)
    after = data(await ask(keeper, "GET", INSTALLATION))

    assert set(before) == OF_INSTALLATION
    assert (before["version"], before["budgetUsd"], before["updatedAt"]) == (0, None, None)
    budget = data(written)
    assert set(budget) == OF_INSTALLATION
    assert data(read) == budget
    assert written.headers["ETag"] == '"1"'
    assert (budget["budgetUsd"], budget["dailyBudgetTokens"]) == ("1000000", 10**12)
    assert budget["month"]["usd"]["limit"] == "1000000"
    assert budget["month"]["usd"]["used"] == before["month"]["usd"]["used"]
    assert removed.status_code == 204
    assert (after["version"], after["budgetUsd"]) == (0, None)


@pytest.mark.usefixtures("no_cap")
@pytest.mark.parametrize("whose", ["user", "installation"])
async def test_limits_change_only_in_the_expected_version(
    keeper: ApiUser, user: ApiUser, whose: str
) -> None:
    path = of(user) if whose == "user" else INSTALLATION

    early = await ask(keeper, "PUT", path, if_match='"1"', budgetUsd="500000")
    first = await ask(keeper, "PUT", path, if_match='"0"', budgetUsd="500000")
    same = await ask(keeper, "PUT", path, budgetUsd="500000.00")
    second = await ask(keeper, "PUT", path, if_match='"1"', budgetUsd="600000")
    late = await ask(keeper, "PUT", path, if_match='"1"', budgetUsd="700000")
    late_end = await ask(keeper, "DELETE", path, if_match='"1"')
    end = await ask(keeper, "DELETE", path, if_match='"2"')

    check_error(early, 412, "PRECONDITION_FAILED")
    assert data(first)["version"] == data(same)["version"] == 1
    assert (data(second)["version"], data(second)["budgetUsd"]) == (2, "600000")
    check_error(late, 412, "PRECONDITION_FAILED")
    check_error(late_end, 412, "PRECONDITION_FAILED")
    assert end.status_code == 204


async def test_a_budget_of_an_unknown_user_is_not_found(keeper: ApiUser) -> None:
    path = f"/admin/users/{uuid4()}/budget"
    for method in ("GET", "PUT", "DELETE"):
        check_error(await ask(keeper, method, path), 404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"budgetUsd": "-1"}, "body.budgetUsd"),
        ({"dailyBudgetUsd": "5 EUR"}, "body.dailyBudgetUsd"),
        ({"budgetTokens": 1.5}, "body.budgetTokens"),
        ({"dailyBudgetTokens": 10**30}, "body.dailyBudgetTokens"),
        ({"currency": "EUR"}, "body.currency"),
        ({"version": 1}, "body.version"),
        ([], "body"),
    ],
    ids=str,
)
async def test_invalid_limits_are_rejected_with_the_field(
    keeper: ApiUser, user: ApiUser, body: object, path: str
) -> None:
    for where in (of(user), INSTALLATION):
        response = await keeper.request("PUT", where, json=body)

        check_error(response, 400, "VALIDATION_ERROR")
        assert response.json()["error"]["details"][0]["path"] == path


@pytest.mark.usefixtures("no_cap")
async def test_changes_of_limits_are_audited(keeper: ApiUser, user: ApiUser, stack: Stack) -> None:
    for path in (of(user), INSTALLATION):
        await ask(keeper, "PUT", path, budgetUsd="7000000")
        await ask(keeper, "PUT", path, budgetUsd="7000000")
        await ask(keeper, "DELETE", path)
        await ask(keeper, "DELETE", path)

    rows = await stack.inspection.rows(
        "SELECT action, resource_id, subject_id, details->>'budgetUsd' AS usd FROM audit_log "
        "WHERE actor_id = $1 AND action LIKE '%budget%' ORDER BY id",
        UUID(keeper.id),
    )
    assert [tuple(row.values()) for row in rows] == [
        ("user.budget_set", user.id, UUID(user.id), "7000000"),
        ("user.budget_removed", user.id, UUID(user.id), None),
        ("installation.budget_set", None, None, "7000000"),
        ("installation.budget_removed", None, None, None),
    ]


async def test_a_key_may_have_a_budget_which_is_shown_with_what_was_spent(member: ApiUser) -> None:
    body = {"name": "Import", "budget": {"budgetUsd": "2", "dailyBudgetTokens": 100}}
    made = await member.request("POST", "/users/me/api-keys", json=body)
    plain = await member.request("POST", "/users/me/api-keys", json={"name": "Plain"})

    listed = (await member.request("GET", "/users/me/api-keys")).json()["data"]

    assert made.status_code == 201, made.text
    budget = made.json()["data"]["budget"]
    assert set(budget) == USE
    assert (budget["budgetUsd"], budget["dailyBudgetTokens"]) == ("2", 100)
    assert budget["month"]["usd"] == {"limit": "2", "used": "0", "reserved": "0", "left": "2"}
    assert plain.json()["data"]["budget"] is None
    assert [key["budget"] for key in listed] == [None, budget]


async def test_a_retried_creation_returns_the_keys_budget(member: ApiUser) -> None:
    headers = {"Idempotency-Key": "k"}
    body = {"name": "Import", "budget": {"budgetUsd": "2"}}
    first = await member.request("POST", "/users/me/api-keys", json=body, headers=headers)
    again = await member.request("POST", "/users/me/api-keys", json=body, headers=headers)
    other = {"name": "Import", "budget": {"budgetUsd": "3"}}
    conflict = await member.request("POST", "/users/me/api-keys", json=other, headers=headers)

    assert again.json()["data"] == {**first.json()["data"], "key": None}
    check_error(conflict, 409, "IDEMPOTENCY_CONFLICT")


@pytest.mark.parametrize("budget", [{"budgetUsd": "-1"}, {"budgetUsd": "NaN"}])
async def test_an_invalid_budget_of_a_key_is_rejected_with_the_field(
    member: ApiUser, budget: dict[str, object]
) -> None:
    body = {"name": "Import", "budget": budget}
    response = await member.request("POST", "/users/me/api-keys", json=body)

    check_error(response, 400, "VALIDATION_ERROR")
    assert response.json()["error"]["details"][0]["path"] == "body.budget.budgetUsd"
