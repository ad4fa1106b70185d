"""The limits of budgets, as every endpoint that takes them reads them: here in a plan."""

import json
import math
import uuid
from typing import Any

import pytest

from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.stack import Stack


@pytest.fixture
async def keeper(stack: Stack, member: ApiUser) -> ApiUser:
    """An administrator who speaks through the recording client."""
    await stack.inspection.execute(
        "UPDATE users SET role = 'admin' WHERE id = $1", uuid.UUID(member.id)
    )
    return member


@pytest.mark.parametrize("name", ["budgetUsd", "dailyBudgetUsd"])
@pytest.mark.parametrize(
    ("amount", "shown"),
    [("0", "0"), ("-0", "0"), (0.1, "0.1"), (25, "25"), ("0.0000000001", "0.0000000001")],
)
async def test_an_amount_of_money_is_a_plain_decimal(
    keeper: ApiUser, name: str, amount: object, shown: str
) -> None:
    body = {"name": unique("plan"), "entitlements": {name: amount}}
    response = await keeper.request("POST", "/admin/plans", json=body)

    assert response.status_code == 201, response.text
    assert response.json()["data"]["entitlements"][name] == shown


@pytest.mark.parametrize("name", ["budgetTokens", "dailyBudgetTokens"])
@pytest.mark.parametrize("tokens", [0, 1, 10**15])
async def test_a_budget_of_tokens_is_an_integer(keeper: ApiUser, name: str, tokens: int) -> None:
    body = {"name": unique("plan"), "entitlements": {name: tokens}}
    response = await keeper.request("POST", "/admin/plans", json=body)

    assert response.status_code == 201, response.text
    assert response.json()["data"]["entitlements"][name] == tokens


@pytest.mark.parametrize("name", ["budgetUsd", "dailyBudgetUsd"])
@pytest.mark.parametrize(
    "amount",
    [
        *("-1", -0.01, "NaN", math.nan, "Infinity", math.inf, "1e400", "9" * 100_000),
        *("€5", "5 EUR", "5,00", "five", "", True, [], {}, "1000000001", "0.00000000001"),
    ],
    ids=lambda amount: str(amount)[:10],
)
async def test_what_is_not_an_amount_of_money_is_rejected_with_the_field(
    keeper: ApiUser, name: str, amount: object
) -> None:
    await check_rejected(keeper, name, amount)


@pytest.mark.parametrize("name", ["budgetTokens", "dailyBudgetTokens"])
@pytest.mark.parametrize(
    "tokens", [-1, 1.5, "5", math.nan, math.inf, True, 10**15 + 1, 10**40, []], ids=str
)
async def test_what_is_not_a_number_of_tokens_is_rejected_with_the_field(
    keeper: ApiUser, name: str, tokens: object
) -> None:
    await check_rejected(keeper, name, tokens)


async def check_rejected(keeper: ApiUser, name: str, value: Any) -> None:  # noqa: ANN401 -- any JSON
    # By hand: the client's own encoder refuses numbers that JSON doesn't have.
    body = json.dumps({"name": unique("plan"), "entitlements": {name: value}})
    response = await keeper.request(
        "POST", "/admin/plans", content=body, headers={"Content-Type": "application/json"}
    )

    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["code"] == "VALIDATION_ERROR"
    assert [problem["path"] for problem in error["details"]] == [f"body.entitlements.{name}"]
