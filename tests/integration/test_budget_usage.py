"""What is shown of budgets: the period's sums, those of today, and what is reserved."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from schema.subscriptions import Period
from schema.tables.columns import utc_now
from services.subscriptions.periods import period_at
from tests.fixtures.api_user import ApiUser
from tests.fixtures.budgets import check_exceeded, limit_user
from tests.fixtures.plans import charge, give_plan, make_plan
from tests.fixtures.stack import Stack


async def test_periods_of_a_budget_are_those_of_the_subscription(
    stack: Stack, user: ApiUser, admin: ApiUser
) -> None:
    """What was spent in the last minutes before a period, on the same day, is not part of it."""
    now = utc_now()
    began = now - timedelta(hours=1)
    plan = await make_plan(admin, budgetUsd="0.5")
    await give_plan(admin, user, plan["id"], startedAt=began.isoformat())
    for at in (began - timedelta(seconds=1), began - timedelta(days=40)):
        await charge(stack.inspection, user.id, at=at, cost_usd="100")
    await charge(stack.inspection, user.id, at=began, cost_usd="0.4")
    chat = await user.create_chat()

    usage = (await user.request("GET", "/subscription/usage")).json()["data"]
    budget = (await admin.request("GET", f"/admin/users/{user.id}/budget")).json()["data"]
    allowed = await user.post(chat, "Hello")
    await charge(stack.inspection, user.id, at=now, cost_usd="0.1", step=2)
    refused = await user.post(chat, "Hello")

    assert usage["budget"]["month"]["usd"]["used"] == usage["costUsd"] == "0.4"
    assert usage["budget"]["leftUsd"] == "0.1"
    assert budget["month"] == usage["budget"]["month"]
    assert allowed.status_code == 200, allowed.text
    check_exceeded(refused, scope="user", unit="usd", window="month")
    resets_at = datetime.fromisoformat(refused.json()["error"]["details"]["resetsAt"])
    assert resets_at == datetime.fromisoformat(usage["period"]["end"])


async def test_yesterday_counts_in_the_month_and_not_in_the_day(
    stack: Stack, user: ApiUser, admin: ApiUser
) -> None:
    midnight = utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
    began = (midnight - timedelta(days=3)).astimezone(UTC)
    plan = await make_plan(admin, budgetUsd="100", dailyBudgetUsd="0.2")
    await give_plan(admin, user, plan["id"], startedAt=began.isoformat())
    await charge(stack.inspection, user.id, at=midnight - timedelta(microseconds=1))
    await charge(stack.inspection, user.id, at=midnight, cost_usd="0.1")

    usage = (await user.request("GET", "/subscription/usage")).json()["data"]["budget"]

    assert (usage["day"]["usd"]["used"], usage["day"]["usd"]["left"]) == ("0.1", "0.1")
    assert (usage["month"]["usd"]["used"], usage["leftUsd"]) == ("0.6", "99.4")
    assert usage["day"]["startsAt"] == midnight.strftime("%Y-%m-%dT00:00:00.000000Z")


async def test_usage_shows_what_is_reserved(stack: Stack, user: ApiUser, admin: ApiUser) -> None:
    await limit_user(admin, user, budgetUsd="2", dailyBudgetTokens=100)
    await charge(stack.inspection, user.id, at=utc_now())
    await charge(stack.inspection, user.id, at=utc_now(), cost_usd="0.1", tokens=1, status="open")
    await stack.inspection.execute(
        "UPDATE ledger SET reserved_usd = 0.3, reserved_tokens = 50 "
        "WHERE user_id = $1 AND status = 'open'",
        UUID(user.id),
    )

    usage = (await user.request("GET", "/subscription/usage")).json()["data"]["budget"]
    shown = (await admin.request("GET", f"/admin/users/{user.id}/budget")).json()["data"]

    assert usage["month"]["usd"] == {"limit": "2", "used": "0.5", "reserved": "0.3", "left": "1.2"}
    assert usage["day"]["tokens"] == {"limit": 100, "used": 40, "reserved": 50, "left": 10}
    assert (usage["limitUsd"], usage["leftUsd"]) == ("2", "1.2")
    assert (shown["day"], shown["month"]) == (usage["day"], usage["month"])


async def test_the_database_knows_the_same_periods_as_everyone_else(
    stack: Stack, user: ApiUser, admin: ApiUser
) -> None:
    plan = await make_plan(admin, budgetUsd="1", dailyBudgetUsd="1")
    await give_plan(admin, user, plan["id"])
    now = await stack.inspection.value("SELECT now()")
    anchors = [
        *(datetime(2024, 1, day, 23, 59, 59, 999999, tzinfo=UTC) for day in (1, 28, 29, 30, 31)),
        *(datetime(2023, month, 28, 12, tzinfo=UTC) for month in range(1, 13)),
        *(now - timedelta(minutes=minutes) for minutes in (0, 1, 60, 24 * 60)),
        *(now - timedelta(days=days, minutes=-5) for days in (365, 366, 1000)),
    ]
    for anchor in anchors:
        await stack.inspection.execute(
            "UPDATE subscriptions SET started_at = $2 WHERE user_id = $1", UUID(user.id), anchor
        )
        rows = await stack.inspection.rows(
            "SELECT now(), period, starts_at, resets_at FROM everturn_budgets($1, NULL)",
            UUID(user.id),
        )
        found = {
            row["period"]: Period(start=row["starts_at"], end=row["resets_at"]) for row in rows
        }
        moment = rows[0]["now"]
        midnight = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        today = Period(start=midnight, end=midnight + timedelta(days=1))
        assert found == {"month": period_at(moment, anchor=anchor), "day": today}, anchor
