"""What was used of a subscription: in a period, by user, model and day."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from schema.actors import Actor
from schema.ids import UserId
from schema.pages import PageRequest
from schema.result import Ok
from schema.subscriptions import UsageFilter, UsageGrouping
from schema.tables.columns import utc_now
from services.database import Database
from tests.fakes.scripted_model.scripts import Script
from tests.fixtures.actors import actor_of
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.plans import charge, give_plan, plan_of
from tests.fixtures.stack import Stack

LAST_MONTH_OF_2020 = datetime(2020, 12, 15, tzinfo=UTC)


async def test_usage_is_of_the_period_and_of_no_other_user(
    stack: Stack, user: ApiUser, other_user: ApiUser, admin: ApiUser
) -> None:
    plan = await plan_of(admin, budgetUsd="2", maxMemories=7, maxDocuments=8)
    await give_plan(admin, user, str(plan), startedAt="2020-11-30T00:00:00Z")
    for at in ("2020-11-29T23:59:59", "2020-11-30T00:00:00", "2020-12-29T23:59:59", "2020-12-30"):
        await charge(stack.inspection, user.id, at=datetime.fromisoformat(at).replace(tzinfo=UTC))
    await charge(stack.inspection, user.id, at=LAST_MONTH_OF_2020, step=2, status="open")
    await charge(stack.inspection, other_user.id, at=LAST_MONTH_OF_2020)

    result = await stack.services.subscriptions.usage.get(actor_of(user), month="2020-11")

    assert isinstance(result, Ok)
    usage = result.value
    assert (usage.cost_usd, usage.turns, usage.usage.input_tokens) == (Decimal("1.5"), 2, 30)
    assert (usage.budget.limit_usd, usage.budget.left_usd) == (Decimal(2), Decimal("0.5"))
    assert (usage.memories.limit, usage.documents.limit) == (7, 8)
    assert usage.period.end == datetime(2020, 12, 30, tzinfo=UTC)


async def test_overspending_leaves_zero(stack: Stack, user: ApiUser, admin: ApiUser) -> None:
    await give_plan(admin, user, str(await plan_of(admin, budgetUsd="0.4")))
    await charge(stack.inspection, user.id, at=utc_now())

    result = await stack.services.subscriptions.usage.get(actor_of(user), month=None)

    assert isinstance(result, Ok)
    assert result.value.budget.left_usd == Decimal(0)


async def test_a_turn_is_counted_with_its_message_and_its_cost(stack: Stack, user: ApiUser) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Yes."))
    chat = await user.create_chat()
    turn = (await user.ask(chat, question))["turn"]

    before = await stack.services.subscriptions.usage.get(actor_of(user), month=None)
    await user.request("DELETE", f"/chats/{chat}")
    after = await stack.services.subscriptions.usage.get(actor_of(user), month=None)

    assert isinstance(before, Ok)
    assert isinstance(after, Ok)
    assert (before.value.turns, before.value.messages, before.value.tool_calls) == (1, 1, 0)
    assert before.value.cost_usd == Decimal(turn["costUsd"]) > 0
    assert (after.value.turns, after.value.messages) == (1, 0)
    assert after.value.cost_usd == before.value.cost_usd


MONTH: dict[str, Any] = {
    "since": datetime(2021, 3, 1, tzinfo=UTC),
    "until": datetime(2021, 4, 1, tzinfo=UTC),
}


async def test_usage_adds_up_by_user_model_and_day(
    stack: Stack, user: ApiUser, administrator: Actor
) -> None:
    first, later = datetime(2021, 3, 1, tzinfo=UTC), datetime(2021, 3, 31, 23, 59, tzinfo=UTC)
    await charge(stack.inspection, user.id, at=first, model="a", cost_usd="1")
    await charge(stack.inspection, user.id, at=first, model="b", cost_usd="0.25", step=2)
    await charge(stack.inspection, user.id, at=later, model="b", cost_usd="0.5")
    await charge(stack.inspection, user.id, at=MONTH["until"], model="b")
    mine = {**MONTH, "user_id": UserId(UUID(user.id))}
    report = stack.services.subscriptions.reports.report

    by_user = await report(administrator, UsageFilter(**mine), PageRequest(10))
    by_model = await report(
        administrator, UsageFilter(**mine, group_by=UsageGrouping.MODEL), PageRequest(10)
    )
    by_day = await report(
        administrator,
        UsageFilter(**mine, group_by=UsageGrouping.DAY, model="b"),
        PageRequest(10),
    )

    assert [(row.user_id, row.calls, row.turns, row.cost_usd) for row in by_user.rows.items] == [
        (UUID(user.id), 3, 2, Decimal("1.75"))
    ]
    assert [(row.model, row.turns, row.cost_usd) for row in by_model.rows.items] == [
        ("a", 1, Decimal(1)),
        ("b", 1, Decimal("0.75")),
    ]
    assert [(str(row.day), row.cost_usd) for row in by_day.rows.items] == [
        ("2021-03-31", Decimal("0.5")),
        ("2021-03-01", Decimal("0.25")),
    ]
    assert by_model.totals == by_user.totals
    assert (by_day.totals.calls, by_day.totals.cost_usd) == (2, Decimal("0.75"))


@pytest.mark.parametrize("grouping", UsageGrouping)
async def test_pages_of_usage_hold_every_row_once_while_more_is_spent(
    stack: Stack, administrator: Actor, grouping: UsageGrouping
) -> None:
    year = 2022 + list(UsageGrouping).index(grouping)
    people = [await stack.sign_up() for _ in range(3)]
    for day, person in enumerate(people, 1):
        at = datetime(year, 5, day, tzinfo=UTC)
        await charge(stack.inspection, person.id, at=at, model=f"model {day}")
    chosen = UsageFilter(
        group_by=grouping,
        since=datetime(year, 5, 1, tzinfo=UTC),
        until=datetime(year, 6, 1, tzinfo=UTC),
    )
    report = stack.services.subscriptions.reports.report

    seen, cursor = [], None
    for _ in range(3):
        page = await report(administrator, chosen, PageRequest(1, cursor))
        seen += [row.user_id or row.model or row.day for row in page.rows.items]
        cursor = page.rows.next_cursor
        at = datetime(year, 5, 1, tzinfo=UTC)
        await charge(stack.inspection, people[0].id, at=at, model="model 1", step=2)

    assert len(set(seen)) == 3
    assert seen == sorted(seen, key=str, reverse=grouping is UsageGrouping.DAY)
    assert cursor is None


async def test_users_add_up_only_their_own_ledger(
    stack: Stack, user: ApiUser, other_user: ApiUser
) -> None:
    await charge(stack.inspection, other_user.id, at=MONTH["since"])

    report = await stack.services.subscriptions.reports.report(
        actor_of(user), UsageFilter(**MONTH), PageRequest(10)
    )

    assert report.rows.items == []
    assert report.totals.calls == 0


@pytest.fixture
async def large_ledger(stack: Stack, other_user: ApiUser) -> AsyncIterator[Database]:
    """A database that takes a ledger for large: of five years, a month is a small part."""
    await stack.inspection.execute(
        "INSERT INTO ledger (id, user_id, turn_id, step, attempt, kind, model, status, estimated, "
        "created_at) SELECT gen_random_uuid(), $1, gen_random_uuid(), 1, 1, 'model', 'x', "
        "'settled', false, timestamptz '2010-01-01Z' + n * interval '2 hours' "
        "FROM generate_series(1, 20000) AS n",
        UUID(other_user.id),
    )
    await stack.inspection.execute("ANALYZE ledger")
    yield stack.foundation.database
    await stack.inspection.execute("DELETE FROM ledger WHERE user_id = $1", UUID(other_user.id))


async def test_a_month_of_a_large_ledger_is_found_by_an_index(
    large_ledger: Database, administrator: Actor
) -> None:
    async with large_ledger.statements(administrator) as connection:
        plan = await connection.fetchval(
            "EXPLAIN (FORMAT JSON) SELECT user_id, sum(cost_usd) FROM ledger "
            "WHERE created_at >= '2012-03-01Z' AND created_at < '2012-04-01Z' "
            "GROUP BY user_id ORDER BY user_id"
        )

    assert "ledger_created_at_idx" in {
        node.get("Index Name") for node in nodes(json.loads(plan)[0]["Plan"])
    }


def nodes(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [node, *(inner for part in node.get("Plans", []) for inner in nodes(part))]
