"""Subscriptions: who has which plan, what was used of it, and what the ledger adds up to."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from schema.actors import Actor, ActorType, acting_user
from schema.audit import AuditAction, AuditFilter
from schema.chats import SendMessageRequest
from schema.ids import ChatId, PlanId, UserId
from schema.pages import PageRequest
from schema.result import Err, Ok
from schema.subscriptions import AssignPlanRequest, UsageFilter, UsageGrouping
from schema.tables.columns import utc_now
from schema.turns import IfBusy
from services.database import Database
from services.refusals import Conflict
from services.subscriptions.service import AssignmentRefusal
from services.turns.acceptance import Refusal
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.plans import STANDARD, charge, give_plan, make_plan, other_default
from tests.fixtures.stack import Stack
from workers.demo_model.scripts import Script

LAST_MONTH_OF_2020 = datetime(2020, 12, 15, tzinfo=UTC)


@pytest.fixture
def administrator(admin: ApiUser) -> Actor:
    """The actor of an administrator."""
    return administrator_of(admin)


def administrator_of(admin: ApiUser) -> Actor:
    return Actor(type=ActorType.ADMIN, user_id=UserId(UUID(admin.id)))


def actor_of(user: ApiUser) -> Actor:
    return acting_user(UserId(UUID(user.id)))


async def plan_of(admin: ApiUser, **entitlements: object) -> PlanId:
    return PlanId(UUID((await make_plan(admin, **entitlements))["id"]))


async def test_who_was_given_no_plan_has_the_default_in_months_of_the_calendar(
    stack: Stack, user: ApiUser
) -> None:
    subscription = await stack.services.subscriptions.get(actor_of(user))

    start = subscription.period.start
    assert (str(subscription.plan.id), subscription.since) == (STANDARD, None)
    assert (start.day, start.time()) == (1, datetime.min.time())
    assert subscription.period.start <= utc_now() < subscription.period.end


async def test_another_default_is_that_of_everybody_without_a_plan_of_their_own(
    stack: Stack, user: ApiUser, other_user: ApiUser, admin: ApiUser
) -> None:
    own, other = await make_plan(admin), await make_plan(admin)
    await give_plan(admin, user, own["id"])

    async with other_default(admin, other["id"]):
        theirs = await stack.services.subscriptions.get(actor_of(other_user))
        kept = await stack.services.subscriptions.get(actor_of(user))

    assert (str(theirs.plan.id), str(kept.plan.id)) == (other["id"], own["id"])


async def test_plans_given_at_once_leave_one_and_a_version_for_each(
    stack: Stack, user: ApiUser, admin: ApiUser, administrator: Actor
) -> None:
    plans = [await plan_of(admin) for _ in range(4)]

    results = await asyncio.gather(
        *(
            stack.services.subscriptions.assign(
                administrator,
                UserId(UUID(user.id)),
                AssignPlanRequest(plan_id=plan),
                version=None,
            )
            for plan in plans
        )
    )

    assigned = [result.value for result in results if isinstance(result, Ok)]
    last = max(assigned, key=lambda each: each.version)
    assert sorted(each.version for each in assigned) == [1, 2, 3, 4]
    assert (await stack.services.subscriptions.get(actor_of(user))).plan.id == last.plan_id
    entries = await stack.services.audit.list_entries(
        administrator,
        AuditFilter(subject_id=UUID(user.id), action=[AuditAction.USER_PLAN_ASSIGNED]),
        PageRequest(100),
    )
    assert len(entries.items) == 4
    assert {entry.actor_id for entry in entries.items} == {administrator.user_id}


async def test_of_plans_given_for_one_version_one_is_given(
    stack: Stack, user: ApiUser, admin: ApiUser, administrator: Actor
) -> None:
    user_id = UserId(UUID(user.id))
    assign = stack.services.subscriptions.assign
    unread = AssignPlanRequest(plan_id=await plan_of(admin))
    before = await assign(administrator, user_id, unread, version=1)
    await assign(administrator, user_id, unread, version=None)

    results = await asyncio.gather(
        *(
            assign(administrator, user_id, AssignPlanRequest(plan_id=plan), version=1)
            for plan in [await plan_of(admin) for _ in range(3)]
        )
    )

    assert before == Err(Conflict.VERSION_CHANGED)
    assert sorted(type(result).__name__ for result in results) == ["Err", "Err", "Ok"]


async def test_the_same_plan_given_again_changes_nothing(
    stack: Stack, user: ApiUser, admin: ApiUser, administrator: Actor
) -> None:
    request = AssignPlanRequest(plan_id=await plan_of(admin))
    user_id = UserId(UUID(user.id))
    assign = stack.services.subscriptions.assign

    first = await assign(administrator, user_id, request, version=None)
    again = await assign(administrator, user_id, request, version=None)

    assert isinstance(first, Ok)
    assert first == again


async def test_a_first_plan_leaves_the_period_and_what_was_used_of_it(
    stack: Stack, user: ApiUser, admin: ApiUser
) -> None:
    await charge(stack.inspection, user.id, at=utc_now())
    before = await stack.services.subscription_usage.get(actor_of(user), month=None)

    await give_plan(admin, user, str(await plan_of(admin, budgetUsd="2")))

    after = await stack.services.subscription_usage.get(actor_of(user), month=None)
    assert isinstance(before, Ok)
    assert isinstance(after, Ok)
    assert after.value.period == before.value.period
    assert after.value.cost_usd == before.value.cost_usd == Decimal("0.5")
    assert after.value.budget.left_usd == Decimal("1.5")


async def test_another_plan_keeps_its_periods_unless_it_is_said_when_they_begin(
    stack: Stack, user: ApiUser, admin: ApiUser, administrator: Actor
) -> None:
    user_id = UserId(UUID(user.id))
    assign = stack.services.subscriptions.assign
    started_at = datetime(2026, 1, 31, 9, tzinfo=UTC)
    first = AssignPlanRequest(plan_id=await plan_of(admin), started_at=started_at)
    second = AssignPlanRequest(plan_id=await plan_of(admin))

    told = await assign(administrator, user_id, first, version=None)
    untold = await assign(administrator, user_id, second, version=None)

    assert isinstance(told, Ok)
    assert isinstance(untold, Ok)
    assert told.value.started_at == untold.value.started_at == started_at
    assert untold.value.plan_id == second.plan_id


async def test_a_plan_that_is_not_active_keeps_its_subscribers_and_gets_no_new_ones(
    stack: Stack, user: ApiUser, other_user: ApiUser, admin: ApiUser
) -> None:
    plan, administrator = await plan_of(admin), administrator_of(admin)
    await give_plan(admin, user, str(plan))
    await admin.request("PATCH", f"/admin/plans/{plan}", json={"active": False})
    assign = stack.services.subscriptions.assign
    earlier = AssignPlanRequest(plan_id=plan, started_at=datetime(2026, 1, 1, tzinfo=UTC))

    new = await assign(
        administrator, UserId(UUID(other_user.id)), AssignPlanRequest(plan_id=plan), version=None
    )
    kept = await assign(administrator, UserId(UUID(user.id)), earlier, version=None)

    assert new == Err(AssignmentRefusal.INACTIVE_PLAN)
    assert isinstance(kept, Ok)
    assert (await stack.services.subscriptions.get(actor_of(user))).plan.id == plan


async def test_what_is_not_there_can_not_be_given(
    stack: Stack, user: ApiUser, admin: ApiUser, administrator: Actor
) -> None:
    assign = stack.services.subscriptions.assign
    plan, user_id = await plan_of(admin), UserId(UUID(user.id))
    tomorrow = AssignPlanRequest(plan_id=plan, started_at=utc_now() + timedelta(days=1))
    nothing = AssignPlanRequest(plan_id=PlanId(uuid4()))
    something = AssignPlanRequest(plan_id=plan)

    assert await assign(administrator, user_id, tomorrow, version=None) == Err(
        AssignmentRefusal.IN_THE_FUTURE
    )
    assert await assign(administrator, user_id, nothing, version=None) == Err(
        AssignmentRefusal.NO_SUCH_PLAN
    )
    assert await assign(administrator, UserId(uuid4()), something, version=None) == Err(
        AssignmentRefusal.NO_SUCH_USER
    )


async def test_users_can_not_give_themselves_a_plan(
    stack: Stack, user: ApiUser, admin: ApiUser
) -> None:
    plan = await plan_of(admin)

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with stack.foundation.database.statements(actor_of(user)) as connection:
            await connection.execute(
                "INSERT INTO subscriptions (user_id, plan_id) VALUES ($1, $2)", UUID(user.id), plan
            )


async def test_usage_is_that_of_the_period_and_of_nobody_else(
    stack: Stack, user: ApiUser, other_user: ApiUser, admin: ApiUser
) -> None:
    plan = await plan_of(admin, budgetUsd="2", maxMemories=7, maxDocuments=8)
    await give_plan(admin, user, str(plan), startedAt="2020-11-30T00:00:00Z")
    for at in ("2020-11-29T23:59:59", "2020-11-30T00:00:00", "2020-12-29T23:59:59", "2020-12-30"):
        await charge(stack.inspection, user.id, at=datetime.fromisoformat(at).replace(tzinfo=UTC))
    await charge(stack.inspection, user.id, at=LAST_MONTH_OF_2020, step=2, status="open")
    await charge(stack.inspection, other_user.id, at=LAST_MONTH_OF_2020)

    result = await stack.services.subscription_usage.get(actor_of(user), month="2020-11")

    assert isinstance(result, Ok)
    usage = result.value
    assert (usage.cost_usd, usage.turns, usage.usage.input_tokens) == (Decimal("1.5"), 2, 30)
    assert (usage.budget.limit_usd, usage.budget.left_usd) == (Decimal(2), Decimal("0.5"))
    assert (usage.memories.limit, usage.documents.limit) == (7, 8)
    assert usage.period.end == datetime(2020, 12, 30, tzinfo=UTC)


async def test_what_was_overspent_leaves_nothing(
    stack: Stack, user: ApiUser, admin: ApiUser
) -> None:
    await give_plan(admin, user, str(await plan_of(admin, budgetUsd="0.4")))
    await charge(stack.inspection, user.id, at=utc_now())

    result = await stack.services.subscription_usage.get(actor_of(user), month=None)

    assert isinstance(result, Ok)
    assert result.value.budget.left_usd == Decimal(0)


async def test_a_turn_is_counted_with_its_message_and_its_cost(stack: Stack, user: ApiUser) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Yes."))
    chat = await user.create_chat()
    turn = (await user.ask(chat, question))["turn"]

    before = await stack.services.subscription_usage.get(actor_of(user), month=None)
    await user.request("DELETE", f"/chats/{chat}")
    after = await stack.services.subscription_usage.get(actor_of(user), month=None)

    assert isinstance(before, Ok)
    assert isinstance(after, Ok)
    assert (before.value.turns, before.value.messages, before.value.tool_calls) == (1, 1, 0)
    assert before.value.cost_usd == Decimal(turn["costUsd"]) > 0
    assert (after.value.turns, after.value.messages) == (1, 0)
    assert after.value.cost_usd == before.value.cost_usd


async def test_a_message_is_answered_only_by_models_of_the_plan(
    stack: Stack, user: ApiUser, admin: ApiUser
) -> None:
    chat = ChatId(UUID(await user.create_chat()))
    await give_plan(admin, user, str(await plan_of(admin, models=["claude-opus-5-5"])))

    refused = await stack.services.acceptance.accept(
        actor_of(user),
        chat,
        SendMessageRequest(content="Hi", model="claude-haiku-5-5"),
        idempotency_key=None,
    )
    accepted = await stack.services.acceptance.accept(
        actor_of(user), chat, SendMessageRequest(content="Hi"), idempotency_key=None
    )

    assert refused == Err(Refusal.MODEL_NOT_ALLOWED)
    assert isinstance(accepted, Ok)
    assert accepted.value.turn.model == "claude-opus-5-5"


async def test_a_message_that_was_accepted_is_replayed_under_a_plan_without_its_model(
    stack: Stack, user: ApiUser, admin: ApiUser
) -> None:
    chat, key = ChatId(UUID(await user.create_chat())), uuid4().hex
    request = SendMessageRequest(content="Hi", model="claude-opus-5-5")
    accept = stack.services.acceptance.accept
    first = await accept(actor_of(user), chat, request, idempotency_key=key)
    await give_plan(admin, user, str(await plan_of(admin, models=[])))

    again = await accept(actor_of(user), chat, request, idempotency_key=key)

    assert isinstance(first, Ok)
    assert isinstance(again, Ok)
    assert (again.value.turn.id, again.value.replayed) == (first.value.turn.id, True)


async def test_a_refused_message_interrupts_nothing(
    stack: Stack, user: ApiUser, admin: ApiUser
) -> None:
    chat = ChatId(UUID(await user.create_chat()))
    accept = stack.services.acceptance.accept
    first = await accept(
        actor_of(user), chat, SendMessageRequest(content="Hi"), idempotency_key=None
    )
    await give_plan(admin, user, str(await plan_of(admin, models=[])))

    refused = await accept(
        actor_of(user),
        chat,
        SendMessageRequest(content="Stop", if_busy=IfBusy.INTERRUPT),
        idempotency_key=None,
    )

    assert isinstance(first, Ok)
    assert refused == Err(Refusal.MODEL_NOT_ALLOWED)
    row = await stack.inspection.turn(str(first.value.turn.id))
    assert row["cancel_requested_at"] is None


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
    report = stack.services.usage_reports.report

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
    report = stack.services.usage_reports.report

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

    report = await stack.services.usage_reports.report(
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
