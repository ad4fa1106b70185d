"""What a person reads about a budget."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from schema.budgets import BudgetExceeded, BudgetScope, BudgetUnit, BudgetWindow

MIDNIGHT = datetime(2026, 12, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("scope", "unit", "window", "sentence"),
    [
        ("user", "usd", "day", "You have no daily budget left."),
        ("user", "tokens", "month", "You have no monthly token budget left."),
        ("api_key", "usd", "month", "This API key has no monthly budget left."),
        ("installation", "tokens", "day", "This server has no daily token budget left."),
    ],
)
def test_a_refusal_names_the_budget_and_when_it_resets(
    scope: str, unit: str, window: str, sentence: str
) -> None:
    refusal = BudgetExceeded(
        scope=BudgetScope(scope),
        unit=BudgetUnit(unit),
        window=BudgetWindow(window),
        resets_at=MIDNIGHT,
    )

    assert refusal.message == f"{sentence} It resets on 2026-12-01 00:00 UTC."


def test_a_refusal_gives_its_time_in_utc() -> None:
    refusal = BudgetExceeded(
        scope=BudgetScope.USER,
        unit=BudgetUnit.USD,
        window=BudgetWindow.DAY,
        resets_at=MIDNIGHT.astimezone(timezone(timedelta(hours=9))),
    )

    assert refusal.message.endswith("2026-12-01 00:00 UTC.")
    assert refusal.model_dump(mode="json", by_alias=True)["resetsAt"] == (
        "2026-12-01T00:00:00.000000Z"
    )
