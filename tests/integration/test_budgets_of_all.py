"""Budgets beside those of users: of API keys, and of the whole installation."""

from uuid import UUID

import pytest

from schema.tables.columns import utc_now
from tests.fixtures.api_user import ApiUser
from tests.fixtures.budgets import check_exceeded, key_of, limit_installation, limit_user
from tests.fixtures.plans import charge
from tests.fixtures.stack import Stack

LIMITS = [
    ({"budgetUsd": "0.5"}, "usd", "month"),
    ({"dailyBudgetUsd": "0.5"}, "usd", "day"),
    ({"budgetTokens": 40}, "tokens", "month"),
    ({"dailyBudgetTokens": 40}, "tokens", "day"),
]


@pytest.mark.parametrize(("limits", "unit", "window"), LIMITS, ids=str)
async def test_a_key_spends_its_own_budget_and_no_other_caller_does(
    stack: Stack, user: ApiUser, *, limits: dict[str, object], unit: str, window: str
) -> None:
    narrow, wide = await key_of(user, **limits), await key_of(user)
    chat = await user.create_chat()
    await charge(stack.inspection, user.id, at=utc_now())
    before = await narrow.post(chat, "Hello")
    await charge(stack.inspection, user.id, at=utc_now(), step=2, api_key_id=narrow.key_id)

    refused = await narrow.post(chat, "Hello")
    others = [await caller.post(chat, "Hello") for caller in (user, wide)]

    assert before.status_code == 200, before.text
    check_exceeded(refused, scope="api_key", unit=unit, window=window)
    assert [response.status_code for response in others] == [200, 200]


async def test_a_turn_remembers_the_key_of_the_request_that_began_it(
    stack: Stack, user: ApiUser
) -> None:
    first, second = await key_of(user), await key_of(user)
    chat = await user.create_chat()
    turn = (await first.ask(chat, "Hello"))["turn"]["id"]
    regenerated = await second.request("POST", f"/turns/{turn}/regenerate", json={})
    plain = (await user.ask(chat, "Hello"))["turn"]["id"]

    turns = [turn, regenerated.json()["data"]["turn"]["id"], plain]
    keys = [
        await stack.inspection.value("SELECT api_key_id FROM turns WHERE id = $1", UUID(each))
        for each in turns
    ]

    assert keys == [UUID(first.key_id), UUID(second.key_id), None]


async def test_a_key_of_another_user_does_not_share_a_budget(
    user: ApiUser, other_user: ApiUser, admin: ApiUser
) -> None:
    await limit_user(admin, user, budgetUsd="0")
    mine, theirs = await key_of(user), await key_of(other_user)

    refused = await mine.post(await user.create_chat(), "Hello")
    allowed = await theirs.post(await other_user.create_chat(), "Hello")

    check_exceeded(refused, scope="user", unit="usd", window="month")
    assert allowed.status_code == 200


async def test_a_key_reaches_no_limit_of_its_own(user: ApiUser) -> None:
    key = await key_of(user, budgetUsd="0")
    path = f"/users/me/api-keys/{key.key_id}"

    changed = [
        await key.request(method, path, json={"budget": None}) for method in ("PATCH", "PUT")
    ]
    created = await key.request("POST", "/users/me/api-keys", json={"name": "Wider"})
    raised = await key.request("PUT", f"/admin/users/{user.id}/budget", json={})

    assert [response.status_code for response in changed] == [405, 405]
    assert (created.status_code, raised.status_code) == (403, 403)
    check_exceeded(
        await key.post(await user.create_chat(), "Hello"),
        scope="api_key",
        unit="usd",
        window="month",
    )


@pytest.mark.parametrize(
    ("limits", "unit", "window"),
    [
        ({"budgetUsd": "0"}, "usd", "month"),
        ({"dailyBudgetUsd": "0"}, "usd", "day"),
        ({"budgetTokens": 0}, "tokens", "month"),
        ({"dailyBudgetTokens": 0}, "tokens", "day"),
    ],
    ids=str,
)
async def test_nobody_is_accepted_where_the_installation_has_nothing_left(
    user: ApiUser, admin: ApiUser, *, limits: dict[str, object], unit: str, window: str
) -> None:
    chats = [(each, await each.create_chat()) for each in (user, admin)]

    async with limit_installation(admin, **limits):
        refused = [await each.post(chat, "Hello") for each, chat in chats]
    allowed = await user.post(chats[0][1], "Hello")

    for response in refused:
        check_exceeded(response, scope="installation", unit=unit, window=window)
    assert allowed.status_code == 200


async def test_the_installation_counts_what_was_spent_before_it_had_a_budget(
    stack: Stack, user: ApiUser, other_user: ApiUser, admin: ApiUser
) -> None:
    for each in (user, other_user):
        await charge(stack.inspection, each.id, at=utc_now(), cost_usd="1000000")
    chat = await user.create_chat()

    async with limit_installation(admin, dailyBudgetUsd="2000000"):
        budget = (await admin.request("GET", "/admin/budget")).json()["data"]
        refused = await user.post(chat, "Hello")
    async with limit_installation(admin, dailyBudgetUsd="9000000"):
        allowed = await user.post(chat, "Hello")
    for each in (user, other_user):
        await stack.inspection.execute("DELETE FROM ledger WHERE user_id = $1", UUID(each.id))
        await stack.inspection.execute("DELETE FROM usage_days WHERE user_id = $1", UUID(each.id))

    check_exceeded(refused, scope="installation", unit="usd", window="day")
    assert float(budget["day"]["usd"]["used"]) >= 2_000_000
    assert budget["day"]["usd"]["left"] == "0"
    assert allowed.status_code == 200
