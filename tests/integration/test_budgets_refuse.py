"""A message is refused where a budget has nothing left: nothing is stored, and it says which."""

import asyncio
from datetime import datetime
from uuid import UUID, uuid4

import pytest

from schema.tables.columns import utc_now
from tests.fakes.scripted_model.scripts import Script
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.budgets import (
    check_exceeded,
    limit_plan,
    limit_user,
)
from tests.fixtures.plans import charge, give_plan, make_plan
from tests.fixtures.stack import Stack

LIMITS = [
    ({"budgetUsd": "0.5"}, "usd", "month"),
    ({"dailyBudgetUsd": "0.5"}, "usd", "day"),
    ({"budgetTokens": 40}, "tokens", "month"),
    ({"dailyBudgetTokens": 40}, "tokens", "day"),
]


async def stored(stack: Stack, user: ApiUser) -> list[int]:
    """Count what a refused request must not store."""
    return [
        await stack.inspection.value(
            f"SELECT count(*) FROM {table} WHERE user_id = $1",
            UUID(user.id),
        )
        for table in ("turns", "messages", "creations", "ledger")
    ]


@pytest.mark.parametrize(("limits", "unit", "window"), LIMITS, ids=str)
@pytest.mark.parametrize("source", ["plan", "user"])
async def test_nothing_is_accepted_where_a_user_has_nothing_left(
    stack: Stack,
    user: ApiUser,
    admin: ApiUser,
    *,
    limits: dict[str, object],
    unit: str,
    window: str,
    source: str,
) -> None:
    await (limit_plan if source == "plan" else limit_user)(admin, user, **limits)
    chat = await user.create_chat()
    # 0.5 USD and 40 tokens.
    await charge(stack.inspection, user.id, at=utc_now())
    before = await stored(stack, user)

    for stream in (False, True):
        response = await user.request(
            "POST",
            f"/chats/{chat}/messages",
            json={"content": "Hello", "stream": stream},
            headers={"Idempotency-Key": uuid4().hex},
        )
        check_exceeded(response, scope="user", unit=unit, window=window)

    assert await stored(stack, user) == before


async def test_what_is_left_is_spent_before_anything_is_refused(
    stack: Stack, user: ApiUser, admin: ApiUser
) -> None:
    await limit_user(admin, user, budgetUsd="0.6", budgetTokens=1_000_000)
    await charge(stack.inspection, user.id, at=utc_now())

    turn = (await user.ask(await user.create_chat(), "Hello"))["turn"]

    assert turn["status"] == "completed"


async def test_what_running_calls_hold_counts_as_spent(
    stack: Stack, user: ApiUser, admin: ApiUser
) -> None:
    await limit_user(admin, user, dailyBudgetUsd="0.5")
    await charge(stack.inspection, user.id, at=utc_now(), cost_usd="0", status="open")
    await stack.inspection.execute(
        "UPDATE ledger SET reserved_usd = 0.5 WHERE user_id = $1", UUID(user.id)
    )

    refused = await user.post(await user.create_chat(), "Hello")
    await stack.inspection.execute(
        "UPDATE ledger SET status = 'cancelled' WHERE user_id = $1", UUID(user.id)
    )
    released = await user.post(await user.create_chat(), "Hello")

    check_exceeded(refused, scope="user", unit="usd", window="day")
    assert released.status_code == 200, released.text


@pytest.mark.parametrize(
    ("limits", "unit", "window"),
    [({"budgetUsd": "0"}, "usd", "month"), ({"dailyBudgetTokens": 0}, "tokens", "day")],
    ids=str,
)
async def test_a_budget_of_zero_allows_nothing(
    user: ApiUser, admin: ApiUser, *, limits: dict[str, object], unit: str, window: str
) -> None:
    await limit_plan(admin, user, **limits)

    response = await user.post(await user.create_chat(), "Hello")

    check_exceeded(response, scope="user", unit=unit, window=window)


async def test_an_answer_is_not_regenerated_where_nothing_is_left(
    stack: Stack, user: ApiUser, admin: ApiUser
) -> None:
    turn = (await user.ask(await user.create_chat(), "Hello"))["turn"]
    await limit_user(admin, user, budgetUsd="0")
    before = await stored(stack, user)

    for stream in (False, True):
        response = await user.request(
            "POST",
            f"/turns/{turn['id']}/regenerate",
            json={"stream": stream},
            headers={"Idempotency-Key": uuid4().hex},
        )
        check_exceeded(response, scope="user", unit="usd", window="month")
    rerun = await admin.request("POST", f"/admin/turns/{turn['id']}/rerun")

    check_exceeded(rerun, scope="user", unit="usd", window="month")
    assert await stored(stack, user) == before
    assert (await user.turn(turn["id"]))["status"] == "completed"


async def test_a_refused_interruption_interrupts_nothing(
    stack: Stack, user: ApiUser, admin: ApiUser
) -> None:
    question = unique()
    stack.model.add(
        Script(match=question, pieces=("Slowly", " done."), hold=question, hold_after=1)
    )
    chat = await user.create_chat()
    async with user.stream(chat, question) as stream:
        await stream.until_named("delta")
        await limit_user(admin, user, budgetUsd="0")

        refused = await user.post(chat, "Hello", ifBusy="interrupt")
        busy = await user.turn(stream.turn_id)
        await limit_user(admin, user)
        stack.model.release(question)
        events = await stream.all()

    check_exceeded(refused, scope="user", unit="usd", window="month")
    assert busy["status"] == "running"
    assert events[-1].data["status"] == "completed"


async def test_a_retry_of_an_accepted_message_returns_its_turn_without_any_budget(
    user: ApiUser, admin: ApiUser
) -> None:
    chat, key = await user.create_chat(), uuid4().hex
    first = await user.post(chat, "Hello", key=key)
    turn = first.json()["data"]["turn"]["id"]
    path, headers = f"/turns/{turn}/regenerate", {"Idempotency-Key": uuid4().hex}
    newer = await user.request("POST", path, json={}, headers=headers)
    await limit_user(admin, user, budgetUsd="0")

    retried = await user.post(chat, "Hello", key=key)
    regenerated = await user.request("POST", path, json={}, headers=headers)

    assert retried.status_code == regenerated.status_code == 200
    assert retried.json()["data"]["turn"]["id"] == turn
    assert regenerated.json()["data"]["turn"]["id"] == newer.json()["data"]["turn"]["id"]


async def test_of_several_budgets_the_last_to_reset_is_named(user: ApiUser, admin: ApiUser) -> None:
    await limit_user(admin, user, dailyBudgetUsd="0", budgetTokens=0)

    response = await user.post(await user.create_chat(), "Hello")

    check_exceeded(response, scope="user", unit="tokens", window="month")
    resets_at = datetime.fromisoformat(response.json()["error"]["details"]["resetsAt"])
    usage = (await user.request("GET", "/subscription/usage")).json()["data"]
    assert resets_at == datetime.fromisoformat(usage["period"]["end"])


async def test_a_plan_changed_in_the_middle_of_a_period_counts_at_once(
    stack: Stack, user: ApiUser, admin: ApiUser
) -> None:
    plan = await limit_plan(admin, user, budgetUsd="1")
    await charge(stack.inspection, user.id, at=utc_now())
    chat = await user.create_chat()

    async def lower(budget: str) -> None:
        body = {"entitlements": {"budgetUsd": budget}}
        assert (await admin.request("PATCH", f"/admin/plans/{plan}", json=body)).status_code == 200

    await lower("0.4")
    refused = await user.post(chat, "Hello")
    await lower("2")
    raised = await user.post(chat, "Hello")
    other = await make_plan(admin, dailyBudgetTokens=1)
    await give_plan(admin, user, other["id"])
    replaced = await user.post(chat, "Hello")

    check_exceeded(refused, scope="user", unit="usd", window="month")
    assert raised.status_code == 200
    check_exceeded(replaced, scope="user", unit="tokens", window="day")


async def test_limits_of_a_user_replace_the_plans_and_give_way_to_it_when_deleted(
    user: ApiUser, admin: ApiUser
) -> None:
    await limit_plan(admin, user, budgetUsd="0", budgetTokens=0)
    chat = await user.create_chat()

    await limit_user(admin, user, dailyBudgetUsd="5")
    allowed = await user.post(chat, "Hello")
    await admin.request("DELETE", f"/admin/users/{user.id}/budget")
    refused = await user.post(chat, "Hello")

    assert allowed.status_code == 200, allowed.text
    assert refused.status_code == 402


async def test_a_hundred_refusals_store_nothing(
    stack: Stack, user: ApiUser, admin: ApiUser
) -> None:
    await limit_plan(
        admin, user, budgetUsd="0", rates={"messagesPerMinute": 1000, "requestsPerMinute": 1000}
    )
    chat = await user.create_chat()
    # More than this many would wait longer for the chat's lock than a request waits.
    at_once = asyncio.Semaphore(8)

    async def post() -> int:
        async with at_once:
            return (await user.post(chat, "Hello")).status_code

    statuses = await asyncio.gather(*(post() for _ in range(100)))

    assert set(statuses) == {402}
    assert await stored(stack, user) == [0, 0, 0, 0]
