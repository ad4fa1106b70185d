"""Budgets that reach 50, 80 and 100 % raise each alert once, in the transaction of the charge."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import pytest

from schema.actors import SERVICE, acting_user
from schema.budgets import BudgetExceeded, BudgetScope, BudgetUnit, BudgetWindow
from schema.ids import TurnId, UserId, new_id
from schema.result import Err
from services.subscriptions.budget_alerts import BudgetAlerts, notices_of, take_reached
from services.tools.definition import ToolExecution
from services.tools.ledger import ToolLedger
from tests.fakes.scripted_model.scripts import Script, ScriptedUsage
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.event_stream import Event
from tests.fixtures.stack import Stack

INSTALLATION: Final = UUID(int=0)
_SET: Final = """
INSERT INTO budgets (scope, subject_id, user_id, {column}) VALUES ($1, $2, $3, $4)
ON CONFLICT (scope, subject_id) DO UPDATE SET {column} = excluded.{column}
"""
_CHARGE: Final = """
INSERT INTO ledger (id, user_id, turn_id, step, attempt, kind, model, status, estimated, cost_usd,
                    input_tokens, api_key_id, settled_at)
VALUES ($1, $2, $3, 1, 1, 'model', 'claude-haiku-5-5', $4, false, $5, $6, $7, now())
"""
_SETTLE: Final = "UPDATE ledger SET status = 'settled', cost_usd = $2 WHERE id = $1"


class Spender:
    """A user whose charges and budgets a test sets in the database."""

    def __init__(self, stack: Stack, user: ApiUser) -> None:
        self.stack = stack
        self.user_id = UserId(UUID(user.id))
        self.turn_id = TurnId(new_id())
        self._database = stack.foundation.database

    async def limit(
        self, column: str, limit: object, *, scope: str = "user", subject: UUID | None = None
    ) -> None:
        owner = None if scope == "installation" else self.user_id
        await self.stack.inspection.execute(
            _SET.format(column=column), scope, subject or self.user_id, owner, limit
        )

    async def spend(self, cost: str = "0", *, tokens: int = 0, api_key: UUID | None = None) -> None:
        """Settle a charge in a transaction of its own."""
        row = (new_id(), self.user_id, new_id(), "settled", Decimal(cost), tokens, api_key)
        async with self._database.statements(acting_user(self.user_id)) as connection:
            await connection.execute(_CHARGE, *row)

    async def alerts(self, *, of_all: bool = False) -> list[dict[str, Any]]:
        """Return the details of the alerts, each as often as it stands in the audit log."""
        whose = "user_id IS NULL" if of_all else "user_id = $1"
        rows = await self.stack.inspection.rows(
            "SELECT severity, details, dedup_key, resource_type, resource_id FROM alerts"
            f" WHERE kind = 'budget.reached' AND {whose} ORDER BY dedup_key",
            *([] if of_all else [self.user_id]),
        )
        audited = await self.stack.inspection.rows(
            "SELECT details FROM audit_log WHERE action = 'budget.reached'"
            " AND subject_id IS NOT DISTINCT FROM $1"
            " AND created_at >= (SELECT min(created_at) FROM alerts)",
            None if of_all else self.user_id,
        )
        assert sorted(str(row["details"]) for row in audited) == sorted(
            str(row["details"]) for row in rows
        )
        return [{**row, "details": json.loads(row["details"])} for row in rows]

    async def reached(self) -> list[int]:
        """Return the thresholds that were raised."""
        return [row["details"]["threshold"] for row in await self.alerts()]


@pytest.fixture(autouse=True)
async def nothing_else(stack: Stack) -> AsyncIterator[None]:
    """Begin and end without alerts and a budget of the installation."""
    await stack.inspection.execute("DELETE FROM alerts")
    await stack.inspection.execute("DELETE FROM budgets WHERE scope = 'installation'")
    yield
    await stack.inspection.execute("DELETE FROM budgets WHERE scope = 'installation'")


@pytest.fixture
def spender(stack: Stack, user: ApiUser) -> Spender:
    """A new user who spends."""
    return Spender(stack, user)


def refusal(unit: BudgetUnit = BudgetUnit.USD) -> BudgetExceeded:
    return BudgetExceeded(
        scope=BudgetScope.USER,
        unit=unit,
        window=BudgetWindow.MONTH,
        resets_at=datetime(2100, 1, 1, tzinfo=UTC),
    )


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
        await connection.execute(_CHARGE, *row)
    while_open = await spender.reached()

    async with database.statements(acting_user(user_id)) as connection:
        await connection.execute(_SETTLE, charge_id, Decimal("0.85"))

    assert while_open == []
    assert await spender.reached() == [50, 80]


async def test_a_charge_that_is_rolled_back_raises_nothing(spender: Spender) -> None:
    await spender.limit("budget_usd", Decimal(1))
    row = (new_id(), spender.user_id, spender.turn_id, "settled", Decimal(2), 0, None)

    async with spender.stack.foundation.database.statements(SERVICE) as connection:
        await connection.execute(_CHARGE, *row)
        reached = await take_reached(connection, spender.turn_id)
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
        await connection.execute(_CHARGE, *row)
        reached = await take_reached(connection, spender.turn_id)
    async with database.statements(acting_user(spender.user_id)) as connection:
        again = await take_reached(connection, spender.turn_id)

    told = notices_of(reached)
    assert {notice.code for notice in told} == {"budget_reached"}
    first, second = sorted(notice.message for notice in told)
    assert first.startswith("50% of your daily token budget is used. It resets at ")
    assert second.startswith("80% of your monthly budget is used. It resets at ")
    assert again == []


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


async def test_a_refusal_is_reported_once_for_its_budget(spender: Spender) -> None:
    await spender.limit("budget_usd", Decimal(1))
    await spender.limit("daily_budget_usd", Decimal(1))
    started: list[None] = []
    alerts = BudgetAlerts(spender.stack.foundation.database, lambda: started.append(None))
    await spender.spend("0.6")

    await asyncio.gather(*(alerts.refused(spender.user_id, refusal()) for _ in range(20)))

    reached = [
        (row["details"]["window"], row["details"]["threshold"]) for row in await spender.alerts()
    ]
    assert reached == [("day", 50), ("month", 50), ("month", 100)]
    assert len(started) == 1
    details = (await spender.alerts())[-1]["details"]
    assert (details["reason"], details["used"], details["usedPercent"]) == ("refused", "0.6", 60)


async def test_a_budget_that_is_used_up_after_a_refusal_is_reported_as_spent(
    spender: Spender,
) -> None:
    await spender.limit("budget_usd", Decimal(1))
    alerts = BudgetAlerts(spender.stack.foundation.database, lambda: None)
    await alerts.refused(spender.user_id, refusal())

    await spender.spend("1")

    assert [
        (row["details"]["threshold"], row["details"]["reason"]) for row in await spender.alerts()
    ] == [(50, "spent"), (80, "spent"), (100, "spent"), (100, "refused")]


async def test_a_refusal_by_a_budget_that_is_used_up_is_no_news(spender: Spender) -> None:
    await spender.limit("budget_usd", Decimal(1))
    alerts = BudgetAlerts(spender.stack.foundation.database, lambda: None)
    await spender.spend("1")

    await alerts.refused(spender.user_id, refusal())

    assert await spender.reached() == [50, 80, 100]


async def test_a_model_call_that_does_not_fit_alerts_that_the_budget_refused_it(
    user: ApiUser, stack: Stack, spender: Spender
) -> None:
    await spender.limit("daily_budget_tokens", 10)
    chat = await user.create_chat()

    events = await _asked(user, chat, unique())

    assert [event.data["code"] for event in events if event.name == "error"] == ["BUDGET_EXCEEDED"]
    assert await spender.reached() == [100]


async def test_a_message_that_is_refused_alerts_that_the_budget_refused_it(
    user: ApiUser, spender: Spender
) -> None:
    await spender.limit("budget_usd", Decimal(0))
    chat = await user.create_chat()

    message = {"content": "Hello", "stream": False}
    path = f"/chats/{chat}/messages"

    answers = [await user.request("POST", path, json=message) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [402] * 3
    assert await spender.reached() == [100]


async def test_a_paid_tool_that_does_not_fit_alerts_that_the_budget_refused_it(
    spender: Spender,
) -> None:
    await spender.limit("budget_usd", Decimal("0.01"))
    execution = ToolExecution(
        acting_user(spender.user_id), "key", turn_id=spender.turn_id, step=1, tool_call_id="c"
    )

    opened = await ToolLedger(spender.stack.foundation.database).open(
        execution, model="dear", estimate_usd=Decimal("0.02")
    )

    assert isinstance(opened, Err)
    assert await spender.reached() == [100]


async def test_a_refusal_by_a_budget_that_is_gone_raises_nothing(spender: Spender) -> None:
    alerts = BudgetAlerts(spender.stack.foundation.database, lambda: None)

    await alerts.refused(spender.user_id, refusal())

    assert await spender.alerts() == []
