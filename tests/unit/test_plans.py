"""Plans: what their entitlements may say, and which model a message is answered by."""

from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from schema.plans import ChangePlanRequest, CreatePlanRequest, Entitlements
from services.subscriptions.plans import allows_model, choose_model, stored_entitlements

MODELS = ("small", "middle", "large")


@pytest.mark.parametrize(
    "entitlements",
    [
        {"unknown": 1},
        {"rates": {"unknown": 1}},
        {"rates": {"requestsPerMinute": 0}},
        {"rates": {"requestsPerMinute": "60"}},
        {"rates": None},
        {"maxMemories": -1},
        {"maxMemories": 50_001},
        {"maxMemories": 1.0},
        {"maxMemories": "1"},
        {"maxMemories": True},
        {"maxMemories": None},
        {"maxDocumentBytes": 0},
        {"maxApiKeys": 10**30},
        {"models": "small"},
        {"models": [""]},
        {"models": [1]},
        {"models": ["a\x00b"]},
        {"models": ["\ud800"]},
        {"models": ["x" * 101]},
        {"models": ["x"] * 101},
        {"models": {"small": True}},
        {"tools": [None]},
        {"tools": ["web search"]},
        {"tools": ["x" * 65]},
        {"toolApprovals": {"web search": "ask"}},
        {"budgetUsd": "-0.01"},
        {"budgetUsd": "NaN"},
        {"budgetUsd": "Infinity"},
        {"budgetUsd": "1e300"},
        {"budgetUsd": "0." + "1" * 11},
        {"budgetUsd": True},
        {"budgetUsd": "ten"},
    ],
    ids=str,
)
def test_invalid_entitlements_are_rejected(entitlements: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CreatePlanRequest.model_validate({"name": "Team", "entitlements": entitlements})


def test_a_tool_may_be_named_before_it_is_there() -> None:
    entitlements = Entitlements.model_validate({"tools": ["github__create_issue", "comes-later"]})

    assert entitlements.tools == ("github__create_issue", "comes-later")


@pytest.mark.parametrize("budget", ["12.5", "12.50", 12.5])
def test_a_budget_is_a_decimal(budget: object) -> None:
    entitlements = Entitlements.model_validate({"budgetUsd": budget})

    assert entitlements.budget_usd == Decimal("12.5")
    assert stored_entitlements(entitlements)["budgetUsd"] == "12.5"


def test_entitlements_are_read_as_they_were_stored() -> None:
    entitlements = Entitlements(
        models=("small",), tools=("calculator",), budget_usd=Decimal("0.0000000001"), max_api_keys=3
    )

    assert Entitlements.model_validate(stored_entitlements(entitlements)) == entitlements


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"name": None},
        {"name": ""},
        {"name": "x" * 101},
        {"description": "x" * 1001},
        {"entitlements": None},
        {"isDefault": 1},
        {"active": None},
        {"version": 1},
    ],
    ids=str,
)
def test_an_invalid_plan_update_is_rejected(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ChangePlanRequest.model_validate(change)


@pytest.mark.parametrize(
    ("allowed", "wanted", "expected"),
    [
        (None, None, "small"),
        (None, "large", "large"),
        (("large", "small"), None, "small"),
        (("large", "middle"), None, "large"),
        (("gone", "middle"), None, "middle"),
        (("large",), "large", "large"),
        (("large",), "small", None),
        (("gone",), None, None),
        ((), None, None),
        ((), "small", None),
    ],
)
def test_the_plan_decides_which_model_answers(
    allowed: tuple[str, ...] | None, wanted: str | None, expected: str | None
) -> None:
    chosen = choose_model(
        Entitlements(models=allowed), wanted, models=MODELS, preferred=(None, "small")
    )

    assert chosen == expected


@pytest.mark.parametrize(
    ("entitlements", "expected"),
    [
        (Entitlements(), True),
        (Entitlements(models=("small",)), True),
        (Entitlements(models=("large",)), False),
        (Entitlements(models=()), False),
        (None, False),
    ],
)
def test_a_model_may_be_asked_under_a_plan_that_allows_it_and_under_no_plan_never(
    entitlements: Entitlements | None, *, expected: bool
) -> None:
    assert allows_model(entitlements, "small") == expected


@pytest.mark.parametrize(
    ("allowed", "preferred", "expected"),
    [
        (None, "large", "large"),
        (None, "gone", "small"),
        (("middle", "large"), "large", "large"),
        (("middle",), "large", "middle"),
    ],
)
def test_the_model_that_a_user_prefers_answers_where_the_plan_allows_it(
    allowed: tuple[str, ...] | None, preferred: str, expected: str
) -> None:
    chosen = choose_model(
        Entitlements(models=allowed), None, models=MODELS, preferred=(preferred, "small")
    )

    assert chosen == expected
