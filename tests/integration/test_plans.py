"""Plans: exactly one is the default, whatever changes at the same time."""

import asyncio
from uuid import UUID, uuid4

from schema.actors import Actor, ActorType
from schema.audit import AuditFilter, ResourceType
from schema.ids import PlanId, UserId
from schema.pages import PageRequest
from schema.plans import (
    ChangePlanRequest,
    CreatePlanRequest,
    Entitlements,
    Plan,
    PlanFilter,
    PlanSort,
)
from schema.result import Err, Ok
from services.resources import Conflict, Unreachable
from services.subscriptions.plans import PlanRefusal, UnknownModel
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.plans import STANDARD, give_plan, make_plan, other_default
from tests.fixtures.stack import Stack


async def create_plan(stack: Stack, administrator: Actor, **fields: object) -> Plan:
    request = CreatePlanRequest.model_validate({"name": unique("plan"), **fields})
    result = await stack.services.subscriptions.plans.create(administrator, request, key=None)
    assert isinstance(result, Ok), result
    return result.value


async def defaults(stack: Stack) -> list[UUID]:
    rows = await stack.inspection.rows("SELECT id FROM plans WHERE is_default")
    return [row["id"] for row in rows]


async def test_one_of_several_concurrent_default_plan_changes_wins(
    stack: Stack, administrator: Actor, admin: ApiUser
) -> None:
    plans = [await create_plan(stack, administrator) for _ in range(5)]
    request = ChangePlanRequest(is_default=True)

    async with other_default(admin, str(plans[0].id)):
        results = await asyncio.gather(
            *(
                stack.services.subscriptions.plans.change(
                    administrator, plan.id, request, versions=None
                )
                for plan in plans
            ),
            *(
                stack.services.subscriptions.plans.create(
                    administrator,
                    CreatePlanRequest(name=unique("plan"), is_default=True),
                    key=None,
                )
                for _ in range(3)
            ),
        )
        assert all(isinstance(result, Ok) and result.value.is_default for result in results)
        assert len(await defaults(stack)) == 1

    assert await defaults(stack) == [UUID(STANDARD)]


async def test_the_plan_that_was_the_default_gets_a_new_version(
    stack: Stack, admin: ApiUser
) -> None:
    first, second = await make_plan(admin), await make_plan(admin)

    async with other_default(admin, first["id"]) as was, other_default(admin, second["id"]):
        row = await stack.inspection.rows(
            "SELECT version, is_default FROM plans WHERE id = $1", UUID(first["id"])
        )

    assert row == [{"version": was["version"] + 1, "is_default": False}]


async def test_the_default_plan_can_be_neither_deactivated_nor_unset(
    stack: Stack, administrator: Actor
) -> None:
    change = stack.services.subscriptions.plans.change
    standard = PlanId(UUID(STANDARD))

    assert await change(
        administrator, standard, ChangePlanRequest(active=False), versions=None
    ) == Err(PlanRefusal.DEFAULT_INACTIVE)
    assert await change(
        administrator, standard, ChangePlanRequest(is_default=False), versions=None
    ) == Err(PlanRefusal.DEFAULT_NEEDED)
    assert await defaults(stack) == [UUID(STANDARD)]


async def test_an_inactive_plan_becomes_the_default_only_when_activated(
    stack: Stack, administrator: Actor, admin: ApiUser
) -> None:
    change = stack.services.subscriptions.plans.change
    plan = await create_plan(stack, administrator)
    await change(administrator, plan.id, ChangePlanRequest(active=False), versions=None)

    refused = await change(
        administrator, plan.id, ChangePlanRequest(is_default=True), versions=None
    )
    both = ChangePlanRequest(is_default=True, active=True)
    async with other_default(admin, STANDARD):
        allowed = await change(administrator, plan.id, both, versions=None)

    assert refused == Err(PlanRefusal.DEFAULT_INACTIVE)
    assert isinstance(allowed, Ok)
    assert await defaults(stack) == [UUID(STANDARD)]


async def test_a_plan_name_is_unique_under_concurrency(stack: Stack, administrator: Actor) -> None:
    request = CreatePlanRequest(name=unique("plan"))

    results = await asyncio.gather(
        *(
            stack.services.subscriptions.plans.create(administrator, request, key=None)
            for _ in range(5)
        )
    )

    assert sorted(type(result).__name__ for result in results) == ["Err"] * 4 + ["Ok"]
    assert {result.error for result in results if isinstance(result, Err)} == {
        PlanRefusal.NAME_TAKEN
    }


async def test_one_key_creates_one_plan_and_a_rejected_request_does_not_use_it(
    stack: Stack, administrator: Actor
) -> None:
    create = stack.services.subscriptions.plans.create
    taken = await create_plan(stack, administrator)
    free = CreatePlanRequest(name=unique("plan"))
    key = uuid4().hex

    refused = await create(administrator, CreatePlanRequest(name=taken.name), key=key)
    results = await asyncio.gather(*(create(administrator, free, key=key) for _ in range(3)))
    reused = await create(administrator, CreatePlanRequest(name=unique("plan")), key=key)

    assert refused == Err(PlanRefusal.NAME_TAKEN)
    assert len({result.value.id for result in results if isinstance(result, Ok)}) == 1
    assert all(isinstance(result, Ok) for result in results)
    assert reused == Err(Conflict.KEY_REUSED)


async def test_an_unknown_model_is_rejected_with_its_path(
    stack: Stack, administrator: Actor
) -> None:
    entitlements = Entitlements(models=("claude-haiku-5-5", "gone"))
    plan = await create_plan(stack, administrator)

    created = await stack.services.subscriptions.plans.create(
        administrator, CreatePlanRequest(name="x", entitlements=entitlements), key=None
    )
    changed = await stack.services.subscriptions.plans.change(
        administrator, plan.id, ChangePlanRequest(entitlements=entitlements), versions=None
    )

    assert created == changed == Err(UnknownModel(1))


async def test_one_of_two_updates_of_a_version_succeeds(stack: Stack, administrator: Actor) -> None:
    plan = await create_plan(stack, administrator)

    results = await asyncio.gather(
        *(
            stack.services.subscriptions.plans.change(
                administrator,
                plan.id,
                ChangePlanRequest(description=f"Number {number}"),
                versions={plan.version},
            )
            for number in range(4)
        )
    )

    assert [result.error for result in results if isinstance(result, Err)] == [
        Conflict.VERSION_CHANGED
    ] * 3


async def test_a_changed_plan_applies_at_once_in_the_process_that_changed_it(
    stack: Stack, administrator: Actor, user: ApiUser, admin: ApiUser
) -> None:
    user_id, plan = UserId(UUID(user.id)), await create_plan(stack, administrator)
    await give_plan(admin, user, str(plan.id))
    before = await stack.services.accounts.callers._accounts.get(user_id)

    request = ChangePlanRequest(entitlements=Entitlements(max_memories=7))
    await stack.services.subscriptions.plans.change(administrator, plan.id, request, versions=None)

    after = await stack.services.accounts.callers._accounts.get(user_id)
    assert before is not None
    assert after is not None
    assert (before.entitlements.max_memories, after.entitlements.max_memories) == (10_000, 7)


async def test_a_new_default_applies_at_once_to_users_without_an_assigned_plan(
    stack: Stack, administrator: Actor, user: ApiUser, admin: ApiUser
) -> None:
    standard = {"isDefault": True}
    before = await stack.services.accounts.callers._accounts.get(UserId(UUID(user.id)))
    try:
        plan = await create_plan(stack, administrator, **standard)
        after = await stack.services.accounts.callers._accounts.get(UserId(UUID(user.id)))
    finally:
        await admin.request("PATCH", f"/admin/plans/{STANDARD}", json=standard)

    assert before is not None
    assert after is not None
    assert (str(before.plan_id), after.plan_id) == (STANDARD, plan.id)


async def test_an_update_without_effect_changes_nothing(stack: Stack, administrator: Actor) -> None:
    plan = await create_plan(stack, administrator, entitlements={"budgetUsd": "1.50"})
    same = ChangePlanRequest(name=plan.name, entitlements=plan.entitlements, active=True)

    result = await stack.services.subscriptions.plans.change(
        administrator, plan.id, same, versions=None
    )

    assert result == Ok(plan)
    assert await audited(stack, plan.id) == [("plan.created", {})]


async def test_the_audit_log_names_the_changed_fields_and_quotes_nothing(
    stack: Stack, administrator: Actor
) -> None:
    plan = await create_plan(stack, administrator)
    request = ChangePlanRequest(
        name=unique("secret"),
        entitlements=Entitlements(max_memories=1, tools=("calculator",)),
        active=True,
    )

    await stack.services.subscriptions.plans.change(administrator, plan.id, request, versions=None)

    fields = ["name", "entitlements.tools", "entitlements.maxMemories"]
    assert await audited(stack, plan.id) == [
        ("plan.created", {}),
        ("plan.changed", {"changed": fields}),
    ]


async def audited(stack: Stack, plan_id: UUID) -> list[tuple[str, object]]:
    page = await stack.services.operations.audit.list_entries(
        Actor(type=ActorType.ADMIN, user_id=UserId(uuid4())),
        AuditFilter(resource_type=ResourceType.PLAN, resource_id=str(plan_id)),
        PageRequest(100),
    )
    return [(entry.action, entry.details) for entry in reversed(page.items)]


async def test_users_cannot_change_plans_and_see_only_permitted_ones(
    stack: Stack, user: ApiUser, administrator: Actor
) -> None:
    member = Actor(type=ActorType.USER, user_id=UserId(UUID(user.id)))
    plan = await create_plan(stack, administrator)

    missing = await stack.services.subscriptions.plans.change(
        administrator, PlanId(uuid4()), ChangePlanRequest(active=True), versions=None
    )
    listed = await stack.services.subscriptions.plans.list_plans(
        administrator, PlanFilter(active=True), PageRequest(100), sort=PlanSort.CREATED
    )

    assert missing == Err(Unreachable.MISSING)
    assert plan.id in {each.id for each in listed.items} or listed.next_cursor is not None
    async with stack.foundation.database.statements(member) as connection:
        assert await connection.execute("UPDATE plans SET name = 'Mine'") == "UPDATE 0"
        assert await connection.execute("DELETE FROM plans") == "DELETE 0"
