"""Budgets that reach 50, 80 and 100 % raise each alert once, in the transaction of the charge."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import pytest

from schema.actors import SERVICE, acting_user
from schema.ids import new_id
from services.subscriptions.budget_alerts import mark_reported, notices_of, read_reached
from tests.fakes.scripted_model.scripts import Script, ScriptedUsage
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.budgets import CHARGE, INSTALLATION, Spender
from tests.fixtures.event_stream import Event
from tests.fixtures.stack import Stack

_SETTLE: Final = "UPDATE ledger SET status = 'settled', cost_usd = $2 WHERE id = $1"
_BEGUN_YESTERDAY: Final = """
WITH moved AS (
    UPDATE ledger SET created_at = date_trunc('day', now(), 'UTC') - interval '1 hour'
    WHERE user_id = $1
)
UPDATE usage_days SET day = day - 1 WHERE user_id = $1
"""
_PERIOD_FROM_TODAY: Final = """
INSERT INTO subscriptions (user_id, plan_id, started_at)
VALUES ($1, $2, date_trunc('day', now(), 'UTC') - interval '4 years')
ON CONFLICT (user_id) DO UPDATE SET started_at = excluded.started_at
"""
_PERIOD_FROM_TWO_HOURS_AGO: Final = """
INSERT INTO subscriptions (user_id, plan_id, started_at)
VALUES ($1, $2, now() - interval '2 hours')
ON CONFLICT (user_id) DO UPDATE SET started_at = excluded.started_at
"""
_THREE_HOURS_AGO: Final = """
WITH moved AS (
    UPDATE ledger SET created_at = now() - interval '3 hours' WHERE user_id = $1
    RETURNING created_at
)
UPDATE usage_days SET day = (created_at AT TIME ZONE 'UTC')::date FROM moved
WHERE user_id = $1
"""


async def test_each_threshold_is_raised_when_it_is_reached_and_once(spender: Spender) -> None:
    await spender.limit("budget_usd", Decimal(1))

    seen = []
    for cost in ("0.4999", "0.0001", "0.1", "0.2", "0.1", "0.1", "0.1"):
        await spender.spend(cost)
        seen.append(await spender.reached())

    assert seen == [[], [50], [50], [50, 80], [50, 80], [50, 80, 100], [50, 80, 100]]
    assert [row["severity"] for row in await spender.alerts()] == ["info", "warning", "critical"]


async def test_an_alert_says_which_budget_how_much_and_until_when(spender: Spender) -> None:
    await spender.limit("daily_budget_usd", Decimal("2.50"))

    await spender.spend("1.5")

    (alert,) = await spender.alerts()
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).date()
    assert alert["details"] == {
        "scope": "user",
        "unit": "usd",
        "window": "day",
        "threshold": 50,
        "reason": "spent",
        "usedPercent": 60,
        "limit": "2.5",
        "used": "1.5",
        "resetsAt": f"{tomorrow}T00:00:00Z",
    }
    assert (alert["resource_type"], alert["resource_id"]) == ("user", str(spender.user_id))


async def test_a_jump_raises_all_thresholds_below_it(spender: Spender) -> None:
    await spender.limit("budget_usd", Decimal(1))
    await spender.spend("0.4")

    await spender.spend("0.5")

    assert await spender.reached() == [50, 80]


async def test_each_budget_has_thresholds_of_its_own(spender: Spender) -> None:
    await spender.limit("budget_usd", Decimal(1))
    await spender.limit("daily_budget_tokens", 1_000)

    await spender.spend("0.5", tokens=800)

    reached = [
        (row["details"]["unit"], row["details"]["window"], row["details"]["threshold"])
        for row in await spender.alerts()
    ]
    assert reached == [("tokens", "day", 50), ("tokens", "day", 80), ("usd", "month", 50)]
    assert (await spender.alerts())[0]["details"]["limit"] == 1_000


async def test_the_budget_of_an_api_key_counts_its_own_charges(spender: Spender) -> None:
    key = new_id()
    await spender.stack.inspection.execute(
        "INSERT INTO api_keys (id, user_id, name, start, key_hash, permissions)"
        " VALUES ($1, $2, 'k', 'ev', $3, '{}')",
        *(key, spender.user_id, key.bytes * 2),
    )
    await spender.limit("budget_usd", Decimal(1), scope="api_key", subject=key)

    await spender.spend("5")
    without_key = await spender.alerts()
    await spender.spend("0.6", api_key=key)

    (alert,) = await spender.alerts()
    assert without_key == []
    assert (alert["resource_type"], alert["resource_id"]) == ("api_key", str(key))
    assert alert["details"]["scope"] == "api_key"


async def test_the_budget_of_the_installation_is_no_users_business(spender: Spender) -> None:
    await spender.limit(
        "daily_budget_usd", Decimal(1_000_000), scope="installation", subject=INSTALLATION
    )
    # Counts what other tests have spent today, too.
    spent = await spender.stack.inspection.value(
        "SELECT coalesce(sum(settled_usd), 0) FROM usage_days WHERE scope = 'installation'"
    )
    await spender.limit("daily_budget_usd", spent + 10, scope="installation", subject=INSTALLATION)
    before = len(await _of_installation(spender))

    await spender.spend("10")

    alerts = await _of_installation(spender)
    assert alerts[-1]["details"]["threshold"] == 100
    assert len(alerts) > before
    assert {row["resource_type"] for row in alerts} == {None}
    assert await spender.alerts() == []


async def _of_installation(spender: Spender) -> list[dict[str, Any]]:
    return await spender.alerts(of_all=True)


async def test_charges_settled_at_the_same_time_raise_each_alert_once(spender: Spender) -> None:
    await spender.limit("budget_usd", Decimal(1))

    await asyncio.gather(*(spender.spend("0.05") for _ in range(30)))

    assert await spender.reached() == [50, 80, 100]


async def test_open_calls_count_when_they_are_settled(spender: Spender) -> None:
    await spender.limit("budget_usd", Decimal(1))
    database, user_id = spender.stack.foundation.database, spender.user_id
    row = (charge_id := new_id(), user_id, new_id(), "open", Decimal("0.9"), 0, None)
    async with database.statements(acting_user(user_id)) as connection:
        await connection.execute(CHARGE, *row)
    while_open = await spender.reached()

    async with database.statements(acting_user(user_id)) as connection:
        await connection.execute(_SETTLE, charge_id, Decimal("0.85"))

    assert while_open == []
    assert await spender.reached() == [50, 80]


async def test_a_charge_that_is_rolled_back_raises_nothing(spender: Spender) -> None:
    await spender.limit("budget_usd", Decimal(1))
    row = (new_id(), spender.user_id, spender.turn_id, "settled", Decimal(2), 0, None)

    async with spender.stack.foundation.database.statements(SERVICE) as connection:
        await connection.execute(CHARGE, *row)
        reached = await read_reached(connection, spender.turn_id)
        await connection.execute("ROLLBACK; BEGIN")

    assert len(reached) == 3
    assert await spender.alerts() == []


async def test_the_next_charge_catches_up_with_a_limit_that_was_lowered(spender: Spender) -> None:
    await spender.limit("budget_usd", Decimal(100))
    await spender.spend("9")
    await spender.limit("budget_usd", Decimal(10))
    before = await spender.reached()

    await spender.spend("0.5")

    assert before == []
    assert await spender.reached() == [50, 80]


async def test_the_next_period_raises_again(spender: Spender) -> None:
    await spender.limit("daily_budget_usd", Decimal(1))
    await spender.spend("0.6")
    # As if it had been raised yesterday.
    await spender.stack.inspection.execute(
        "UPDATE alerts SET dedup_key = replace(dedup_key,"
        " extract(epoch FROM date_trunc('day', now() AT TIME ZONE 'UTC'))::bigint::text, '0')"
    )

    await spender.spend("0.1")

    assert len(await spender.stack.inspection.rows("SELECT FROM alerts")) == 2


@pytest.mark.parametrize(
    ("column", "window"), [("daily_budget_usd", "day"), ("budget_usd", "month")]
)
async def test_a_call_that_ends_in_the_next_day_or_period_alerts_for_its_own(
    spender: Spender, column: str, window: str
) -> None:
    """The call began in the last hour of yesterday, and the period ended at midnight."""
    database, user_id = spender.stack.foundation.database, spender.user_id
    await spender.limit(column, Decimal(1))
    plan = await spender.stack.inspection.value("SELECT id FROM plans WHERE is_default")
    await spender.stack.inspection.execute(_PERIOD_FROM_TODAY, user_id, plan)
    row = (charge_id := new_id(), user_id, spender.turn_id, "open", Decimal("0.1"), 0, None)
    async with database.statements(acting_user(user_id)) as connection:
        await connection.execute(CHARGE, *row)
    await spender.stack.inspection.execute(_BEGUN_YESTERDAY, user_id)
    await spender.spend("0.4")

    async with database.statements(acting_user(user_id)) as connection:
        await connection.execute(_SETTLE, charge_id, Decimal("0.85"))
        reached = await read_reached(connection, spender.turn_id)

    today = datetime.now(UTC).date()
    details = [row["details"] for row in await spender.alerts()]
    assert [(one["threshold"], one["window"], one["used"]) for one in details] == [
        (50, window, "0.85"),
        (80, window, "0.85"),
    ]
    assert {one["resetsAt"] for one in details} == {f"{today}T00:00:00Z"}
    # What has ended is no news to the user.
    assert notices_of(reached) == []
    await spender.spend("0.1")
    assert len(await spender.alerts()) == 3


async def test_a_period_that_ends_within_a_day_has_what_was_charged_until_then(
    spender: Spender,
) -> None:
    """The period of the first call ended two hours ago; the second call is of the next one."""
    await spender.limit("budget_usd", Decimal(1))
    plan = await spender.stack.inspection.value("SELECT id FROM plans WHERE is_default")
    await spender.stack.inspection.execute(_PERIOD_FROM_TWO_HOURS_AGO, spender.user_id, plan)
    await spender.spend("0.7")
    await spender.stack.inspection.execute(_THREE_HOURS_AGO, spender.user_id)
    await spender.spend("0.3")

    now, before = [
        await spender.stack.inspection.value(
            "SELECT settled FROM everturn_budgets($1, NULL, now() - $2::interval)",
            *(spender.user_id, timedelta(hours=hours)),
        )
        for hours in (0, 3)
    ]

    assert (now, before) == (Decimal("0.3"), Decimal("0.7"))


async def test_a_budget_of_zero_is_used_up_by_any_charge(spender: Spender) -> None:
    await spender.limit("budget_usd", Decimal(0))

    await spender.spend("0.01")

    assert await spender.reached() == [100]


async def test_without_a_budget_nothing_is_raised(spender: Spender) -> None:
    await spender.spend("1000")

    is_limited = await spender.stack.inspection.value(
        "SELECT everturn_is_limited($1, NULL)", spender.user_id
    )
    assert not is_limited
    assert await spender.alerts() == []


async def test_a_turn_shows_the_highest_threshold_of_each_budget_once(spender: Spender) -> None:
    await spender.limit("budget_usd", Decimal(1))
    await spender.limit("daily_budget_tokens", 1_000)
    row = (new_id(), spender.user_id, spender.turn_id, "settled", Decimal("0.9"), 500, None)
    database = spender.stack.foundation.database

    async with database.statements(acting_user(spender.user_id)) as connection:
        await connection.execute(CHARGE, *row)
        reached = await read_reached(connection, spender.turn_id)
    async with database.statements(acting_user(spender.user_id)) as connection:
        again = await read_reached(connection, spender.turn_id)
    await mark_reported(database, again)
    async with database.statements(acting_user(spender.user_id)) as connection:
        afterwards = await read_reached(connection, spender.turn_id)

    told = notices_of(reached)
    assert {notice.code for notice in told} == {"budget_reached"}
    first, second = sorted(notice.message for notice in told)
    assert first.startswith("50% of your daily token budget is used. It resets at ")
    assert second.startswith("80% of your monthly budget is used. It resets at ")
    assert (again, afterwards) == (reached, [])


async def test_the_turn_that_reaches_a_threshold_shows_it_in_its_stream(
    user: ApiUser, stack: Stack, spender: Spender
) -> None:
    question = unique()
    usage = ScriptedUsage(input_tokens=850_000, output_tokens=5)
    stack.model.add(Script(match=question, text="Well read.", usage=usage))
    stack.model.add(Script(match=question + "!", text="Again.", usage=ScriptedUsage()))
    await spender.limit("daily_budget_tokens", 1_000_000)
    chat = await user.create_chat()

    first = await _asked(user, chat, question)
    second = await _asked(user, chat, question + "!")

    notices = [event.data for event in first if event.name == "notice"]
    assert [notice["code"] for notice in notices] == ["budget_reached"]
    assert notices[0]["message"].startswith("80% of your daily token budget is used. It resets at")
    assert [event.name for event in second if event.name == "notice"] == []
    assert await spender.reached() == [50, 80]


async def _asked(user: ApiUser, chat: str, question: str) -> list[Event]:
    async with user.stream(chat, question) as stream:
        return await stream.all()
