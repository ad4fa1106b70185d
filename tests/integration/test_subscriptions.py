"""Subscriptions: assigned plans, their usage, and the ledger's sums."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import asyncpg
import pytest

from schema.actors import Actor, acting_user
from schema.audit import AuditAction, AuditFilter
from schema.chats import SendMessageRequest
from schema.ids import ChatId, PlanId, UserId, new_id
from schema.pages import PageRequest
from schema.preferences import PreferencesRequest
from schema.result import Err, Ok
from schema.subscriptions import AssignPlanRequest
from schema.tables.columns import utc_now
from schema.turns import IfBusy
from services.resources import Conflict
from services.subscriptions.service import AssignmentRefusal
from services.turns.acceptance import AcceptanceRefusal
from services.users.preferences import PreferencesRefusal
from tests.fixtures.actors import actor_of, administrator_of
from tests.fixtures.api_user import ApiUser
from tests.fixtures.plans import STANDARD, charge, give_plan, make_plan, other_default, plan_of
from tests.fixtures.stack import Stack


async def test_without_an_assigned_plan_the_default_applies_by_calendar_month(
    stack: Stack, user: ApiUser
) -> None:
    subscription = await stack.services.subscriptions.assignments.get(actor_of(user))

    start = subscription.period.start
    assert (str(subscription.plan.id), subscription.since) == (STANDARD, None)
    assert (start.day, start.time()) == (1, datetime.min.time())
    assert subscription.period.start <= utc_now() < subscription.period.end


async def test_a_new_default_is_the_plan_of_all_users_without_a_subscription(
    stack: Stack, user: ApiUser, other_user: ApiUser, admin: ApiUser
) -> None:
    own, other = await make_plan(admin), await make_plan(admin)
    await give_plan(admin, user, own["id"])

    async with other_default(admin, other["id"]):
        theirs = await stack.services.subscriptions.assignments.get(actor_of(other_user))
        kept = await stack.services.subscriptions.assignments.get(actor_of(user))

    assert (str(theirs.plan.id), str(kept.plan.id)) == (other["id"], own["id"])


async def test_concurrent_assignments_leave_one_plan_and_a_version_for_each(
    stack: Stack, user: ApiUser, admin: ApiUser, administrator: Actor
) -> None:
    plans = [await plan_of(admin) for _ in range(4)]

    results = await asyncio.gather(
        *(
            stack.services.subscriptions.assignments.assign(
                administrator,
                UserId(UUID(user.id)),
                AssignPlanRequest(plan_id=plan),
                versions=None,
            )
            for plan in plans
        )
    )

    assigned = [result.value for result in results if isinstance(result, Ok)]
    last = max(assigned, key=lambda each: each.version)
    assert sorted(each.version for each in assigned) == [1, 2, 3, 4]
    assert (
        await stack.services.subscriptions.assignments.get(actor_of(user))
    ).plan.id == last.plan_id
    entries = await stack.services.operations.audit.list_entries(
        administrator,
        AuditFilter(subject_id=UUID(user.id), action=[AuditAction.USER_PLAN_ASSIGNED]),
        PageRequest(100),
    )
    assert len(entries.items) == 4
    assert {entry.actor_id for entry in entries.items} == {administrator.user_id}


async def test_one_of_several_plans_assigned_for_one_version_is_assigned(
    stack: Stack, user: ApiUser, admin: ApiUser, administrator: Actor
) -> None:
    user_id = UserId(UUID(user.id))
    assign = stack.services.subscriptions.assignments.assign
    unread = AssignPlanRequest(plan_id=await plan_of(admin))
    before = await assign(administrator, user_id, unread, versions={1})
    await assign(administrator, user_id, unread, versions=None)

    results = await asyncio.gather(
        *(
            assign(administrator, user_id, AssignPlanRequest(plan_id=plan), versions={1})
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
    assign = stack.services.subscriptions.assignments.assign

    first = await assign(administrator, user_id, request, versions=None)
    again = await assign(administrator, user_id, request, versions=None)

    assert isinstance(first, Ok)
    assert first == again


async def test_a_first_plan_leaves_the_period_and_what_was_used_of_it(
    stack: Stack, user: ApiUser, admin: ApiUser
) -> None:
    await charge(stack.inspection, user.id, at=utc_now())
    before = await stack.services.subscriptions.usage.get(actor_of(user), month=None)

    await give_plan(admin, user, str(await plan_of(admin, budgetUsd="2")))

    after = await stack.services.subscriptions.usage.get(actor_of(user), month=None)
    assert isinstance(before, Ok)
    assert isinstance(after, Ok)
    assert after.value.period == before.value.period
    assert after.value.cost_usd == before.value.cost_usd == Decimal("0.5")
    assert after.value.budget.left_usd == Decimal("1.5")


async def test_another_plan_keeps_the_periods_unless_a_start_is_given(
    stack: Stack, user: ApiUser, admin: ApiUser, administrator: Actor
) -> None:
    user_id = UserId(UUID(user.id))
    assign = stack.services.subscriptions.assignments.assign
    started_at = datetime(2026, 1, 31, 9, tzinfo=UTC)
    first = AssignPlanRequest(plan_id=await plan_of(admin), started_at=started_at)
    second = AssignPlanRequest(plan_id=await plan_of(admin))

    found = await assign(administrator, user_id, first, versions=None)
    before = await assign(administrator, user_id, second, versions=None)

    assert isinstance(found, Ok)
    assert isinstance(before, Ok)
    assert found.value.started_at == before.value.started_at == started_at
    assert before.value.plan_id == second.plan_id


async def test_an_inactive_plan_keeps_its_subscribers_and_accepts_no_new_ones(
    stack: Stack, user: ApiUser, other_user: ApiUser, admin: ApiUser
) -> None:
    plan, administrator = await plan_of(admin), administrator_of(admin)
    await give_plan(admin, user, str(plan))
    await admin.request("PATCH", f"/admin/plans/{plan}", json={"active": False})
    assign = stack.services.subscriptions.assignments.assign
    earlier = AssignPlanRequest(plan_id=plan, started_at=datetime(2026, 1, 1, tzinfo=UTC))

    new = await assign(
        administrator, UserId(UUID(other_user.id)), AssignPlanRequest(plan_id=plan), versions=None
    )
    kept = await assign(administrator, UserId(UUID(user.id)), earlier, versions=None)

    assert new == Err(AssignmentRefusal.INACTIVE_PLAN)
    assert isinstance(kept, Ok)
    assert (await stack.services.subscriptions.assignments.get(actor_of(user))).plan.id == plan


async def test_invalid_assignments_are_rejected(
    stack: Stack, user: ApiUser, admin: ApiUser, administrator: Actor
) -> None:
    assign = stack.services.subscriptions.assignments.assign
    plan, user_id = await plan_of(admin), UserId(UUID(user.id))
    tomorrow = AssignPlanRequest(plan_id=plan, started_at=utc_now() + timedelta(days=1))
    nothing = AssignPlanRequest(plan_id=PlanId(uuid4()))
    something = AssignPlanRequest(plan_id=plan)

    assert await assign(administrator, user_id, tomorrow, versions=None) == Err(
        AssignmentRefusal.IN_THE_FUTURE
    )
    assert await assign(administrator, user_id, nothing, versions=None) == Err(
        AssignmentRefusal.UNKNOWN_PLAN
    )
    assert await assign(administrator, UserId(uuid4()), something, versions=None) == Err(
        AssignmentRefusal.UNKNOWN_USER
    )


async def test_users_cannot_assign_themselves_a_plan(
    stack: Stack, user: ApiUser, admin: ApiUser
) -> None:
    plan = await plan_of(admin)

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with stack.foundation.database.statements(actor_of(user)) as connection:
            await connection.execute(
                "INSERT INTO subscriptions (user_id, plan_id) VALUES ($1, $2)", UUID(user.id), plan
            )


async def test_a_message_is_answered_only_by_models_of_the_plan(
    stack: Stack, user: ApiUser, admin: ApiUser
) -> None:
    chat = ChatId(UUID(await user.create_chat()))
    await give_plan(admin, user, str(await plan_of(admin, models=["claude-opus-5-5"])))

    refused = await stack.services.turns.acceptance.accept(
        actor_of(user),
        chat,
        SendMessageRequest(content="Hi", model="claude-haiku-5-5"),
        key=None,
    )
    accepted = await stack.services.turns.acceptance.accept(
        actor_of(user), chat, SendMessageRequest(content="Hi"), key=None
    )

    assert refused == Err(AcceptanceRefusal.MODEL_NOT_ALLOWED)
    assert isinstance(accepted, Ok)
    assert accepted.value.turn.model == "claude-opus-5-5"


async def test_a_deleted_user_can_prefer_no_model(stack: Stack) -> None:
    nobody = acting_user(UserId(new_id()))

    refused = await stack.services.accounts.preferences.put(
        nobody, PreferencesRequest(default_model="claude-haiku-5-5"), versions=None
    )

    assert refused == Err(PreferencesRefusal.UNKNOWN_MODEL)


async def test_a_message_that_was_accepted_is_replayed_under_a_plan_without_its_model(
    stack: Stack, user: ApiUser, admin: ApiUser
) -> None:
    chat, key = ChatId(UUID(await user.create_chat())), uuid4().hex
    request = SendMessageRequest(content="Hi", model="claude-opus-5-5")
    accept = stack.services.turns.acceptance.accept
    first = await accept(actor_of(user), chat, request, key=key)
    await give_plan(admin, user, str(await plan_of(admin, models=[])))

    again = await accept(actor_of(user), chat, request, key=key)

    assert isinstance(first, Ok)
    assert isinstance(again, Ok)
    assert (again.value.turn.id, again.value.replayed) == (first.value.turn.id, True)


async def test_a_refused_message_interrupts_nothing(
    stack: Stack, user: ApiUser, admin: ApiUser
) -> None:
    chat = ChatId(UUID(await user.create_chat()))
    accept = stack.services.turns.acceptance.accept
    first = await accept(actor_of(user), chat, SendMessageRequest(content="Hi"), key=None)
    await give_plan(admin, user, str(await plan_of(admin, models=[])))

    refused = await accept(
        actor_of(user),
        chat,
        SendMessageRequest(content="Stop", if_busy=IfBusy.INTERRUPT),
        key=None,
    )

    assert isinstance(first, Ok)
    assert refused == Err(AcceptanceRefusal.MODEL_NOT_ALLOWED)
    row = await stack.inspection.turn(str(first.value.turn.id))
    assert row["cancel_requested_at"] is None
