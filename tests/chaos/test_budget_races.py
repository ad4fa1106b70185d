"""Many clients race for one budget over HTTP, while all is well and while processes die."""

import os
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Final
from uuid import UUID

import pytest

from everturn_client import AsyncEverturn
from tests.running_everturn.bystanders import Bystanders
from tests.running_everturn.client import Client
from tests.running_everturn.racing import (
    Bill,
    Finish,
    Race,
    billed_of,
    check_ends,
    check_nothing_stored,
    check_window,
    cost_of,
    longest_answer_usd,
    used_in,
)
from tests.running_everturn.stack import ScriptedStack
from tests.running_everturn.tools import administrator

CLIENTS: Final = int(os.environ.get("EVERTURN_RACERS", "40"))
"""At least twice as many as the budget has room for; 200 by night, when nothing else runs."""
IS_NIGHT: Final = CLIENTS >= 200
CHATS_OF_EACH: Final = 1 if IS_NIGHT else 4
"""Signing up takes longer than a race; by night all racers are users of their own."""
MODEL: Final = "claude-haiku-5-5"
LONGEST_USD: Final = longest_answer_usd(MODEL)
ROOM: Final = 40 if IS_NIGHT else CLIENTS // 2
"""How many of the longest answers a budget has room for, without their prompts."""
SURE: Final = ROOM // 2
"""How many are answered at least: prompts need some of the room, calls that are repeated more."""
BUDGET: Final = LONGEST_USD * ROOM

pytestmark = pytest.mark.timeout(900 if IS_NIGHT else 300)


@pytest.fixture
async def admin(everturn: ScriptedStack, client: Client) -> AsyncIterator[Client]:
    yield await administrator(everturn, client)
    await everturn.query("DELETE FROM budgets WHERE scope = 'installation'")


@pytest.fixture
async def race(everturn: ScriptedStack) -> AsyncIterator[Race]:
    async with Race.at(everturn) as race:
        yield race


async def test_the_chats_of_one_user_race_for_the_users_budget(
    everturn: ScriptedStack, race: Race, admin: Client
) -> None:
    """Others chat meanwhile; none of their requests fails, whatever the user's crowd waits for."""
    ((api, user_id),) = await race.sign_up(1)
    await admin.api.admin.users.set_budget(str(user_id), daily_budget_usd=BUDGET)
    racers = await race.racers([api] * CLIENTS)

    async with Bystanders.of(everturn) as others, others.during("race"):
        finishes = await race.run(racers)

    ends = check_ends(finishes)
    assert SURE <= ends["completed"] < CLIENTS
    await check_nothing_stored(everturn, finishes)
    bill = await Bill.of(race, [user_id])
    bill.check_each(finishes)
    assert bill.usd <= BUDGET + bill.error
    await check_shown(admin, api, user_id, bill)


async def test_users_race_for_the_installations_budget(
    everturn: ScriptedStack, race: Race, admin: Client
) -> None:
    users = await race.sign_up(CLIENTS // CHATS_OF_EACH)
    racers = await race.racers([api for api, _ in users] * CHATS_OF_EACH)
    # What other tests have spent today counts, too.
    before = (await admin.api.admin.budget()).day.usd.used
    await admin.api.admin.set_budget(daily_budget_usd=before + BUDGET)

    finishes = await race.run(racers)

    ends = check_ends(finishes)
    assert SURE <= ends["completed"] < CLIENTS
    await check_nothing_stored(everturn, finishes)
    bill = await Bill.of(race, [user_id for _, user_id in users])
    bill.check_each(finishes)
    assert bill.usd <= BUDGET + bill.error
    shown = (await admin.api.admin.budget()).day.usd
    assert (shown.used, shown.reserved) == (before + bill.usd, Decimal(0))


async def test_the_keys_of_one_user_race_for_their_own_budgets_and_for_the_users(
    everturn: ScriptedStack, race: Race, admin: Client
) -> None:
    ((api, user_id),) = await race.sign_up(1)
    await admin.api.admin.users.set_budget(str(user_id), daily_budget_usd=BUDGET)
    narrow = LONGEST_USD * 4
    keys = [
        await api.api_keys.create(
            name=f"Key {number}", budget={"dailyBudgetUsd": str(narrow)} if number else None
        )
        for number in range(8)
    ]
    clients = [race.client(api_key=key.key) for key in keys]

    finishes = await race.run(await race.racers(clients * (CLIENTS // len(clients))))

    assert check_ends(finishes)["completed"] >= SURE
    await check_nothing_stored(everturn, finishes)
    bill = await Bill.of(race, [user_id])
    bill.check_each(finishes)
    assert bill.usd <= BUDGET + bill.error
    await check_shown(admin, api, user_id, bill)
    for key in keys[1:]:
        of_key = Bill([row for row in bill.rows if row["api_key_id"] == UUID(key.id)], [])
        assert of_key.usd <= narrow + bill.error
        shown = (await api.api_keys.get(key.id)).budget
        assert shown is not None
        check_window(shown.day, usd=of_key.usd, tokens=of_key.tokens, limit=narrow)


async def test_a_budget_holds_while_workers_and_the_api_are_killed(
    everturn: ScriptedStack, race: Race, admin: Client
) -> None:
    ((api, user_id),) = await race.sign_up(1)
    await admin.api.admin.users.set_budget(str(user_id), daily_budget_usd=BUDGET)
    racers = await race.racers([api] * CLIENTS)
    killed = [("worker-turns", 0.25), ("api", 0.6), ("worker-turns", 0.9)]

    async def kill() -> None:
        for name, share in killed:
            await everturn.model.wait_until(
                lambda: len(race.requests) >= ROOM * share,  # noqa: B023 -- awaited in this round
                timeout_s=60,
            )
            everturn.stack.kill(name)
            await everturn.stack.wait_ready(name)

    finishes = await race.run(racers, meanwhile=kill())

    ends = check_ends(finishes)
    assert ends["completed"] >= SURE
    await check_nothing_stored(everturn, finishes)
    bill = await Bill.of(race, [user_id])
    for finish in finishes:
        check_killed(bill, finish)
    assert any(row["status"] == "lost" for row in bill.rows)
    assert bill.usd <= BUDGET + bill.error
    await check_shown(admin, api, user_id, bill)


def check_killed(bill: Bill, finish: Finish) -> None:
    """Check the rows of a turn whose workers may have died: each request has one that counts."""
    rows = [row for row in bill.rows if str(row["turn_id"]) == finish.turn_id]
    asked = [record for record in bill.records if finish.racer.question in record.user_text]
    assert {row["status"] for row in rows} <= {"settled", "lost"}
    settled = [row for row in rows if row["status"] == "settled"]
    assert len(settled) == (finish.status == "completed")
    assert len(rows) >= len(asked)
    for row in settled:
        assert used_in(row) in [billed_of(record) for record in asked if record.finished]
    for row in rows:
        # A lost one at least for its prompt, and for what was recorded of its answer.
        assert row["cost_usd"] == cost_of(row["model"], used_in(row)) > 0


async def check_shown(admin: Client, api: AsyncEverturn, user_id: UUID, bill: Bill) -> None:
    """Check that the user, and an administrator, see what the ledger has."""
    mine = await api.subscription.usage()
    assert mine.cost_usd == bill.usd
    assert mine.budget.day is not None
    check_window(mine.budget.day, usd=bill.usd, tokens=bill.tokens, limit=BUDGET)
    theirs = await admin.api.admin.users.budget(str(user_id))
    check_window(theirs.day, usd=bill.usd, tokens=bill.tokens, limit=BUDGET)
    listed = [row async for row in admin.api.admin.usage(group_by="user", user_id=str(user_id))]
    assert [row.cost_usd for row in listed] == [bill.usd]
