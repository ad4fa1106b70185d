"""Budgets beside those of users: of API keys, and of the whole installation."""

from uuid import UUID

import pytest

from schema.tables.columns import utc_now
from tests.fakes.scripted_model.scripts import Script, ScriptedUsage, ToolCall
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.budgets import check_exceeded, key_of, limit_installation, limit_user
from tests.fixtures.event_stream import named, rebuild, turn_id_of
from tests.fixtures.gate_tool import GATE_TOOL
from tests.fixtures.plans import charge
from tests.fixtures.stack import Stack

# Enough for a turn, and no more than one charge of the test.
LIMITS = [
    ({"budgetUsd": "0.5"}, "usd", "month"),
    ({"dailyBudgetUsd": "0.5"}, "usd", "day"),
    ({"budgetTokens": 100_000}, "tokens", "month"),
    ({"dailyBudgetTokens": 100_000}, "tokens", "day"),
]


@pytest.mark.parametrize(("limits", "unit", "window"), LIMITS, ids=str)
async def test_a_key_spends_its_own_budget_and_no_other_caller_does(
    stack: Stack, user: ApiUser, *, limits: dict[str, object], unit: str, window: str
) -> None:
    narrow, wide = await key_of(user, **limits), await key_of(user)
    chat = await user.create_chat()
    await charge(stack.inspection, user.id, at=utc_now(), tokens=25_000)
    before = await narrow.post(chat, "Hello")
    await charge(
        stack.inspection,
        user.id,
        at=utc_now(),
        tokens=25_000,
        step=2,
        api_key_id=narrow.key_id,
    )

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


async def test_a_key_is_refused_once_its_turns_have_spent_its_budget(
    stack: Stack, user: ApiUser
) -> None:
    question, deep = unique(), unique()
    call = ToolCall(name="deep_reasoning", input={"question": deep})
    usage = ScriptedUsage(input_tokens=9_000, output_tokens=10)
    stack.model.add(Script(match=question, tool_calls=(call,), usage=usage))
    stack.model.add(Script(match=deep, text="Because.", usage=usage))
    stack.model.add(Script(match=question, text="So it is.", usage=usage))
    narrow, wide = await key_of(user, budgetTokens=27_000), await key_of(user)
    chat = await user.create_chat()

    events = await narrow.events_of(chat, question)
    refused = await narrow.post(chat, "Hello")
    others = [await caller.post(chat, "Hello") for caller in (user, wide)]

    assert (rebuild(events), events[-1].data["status"]) == ("So it is.", "completed")
    rows = await stack.inspection.charges(turn_id_of(events))
    assert [row["kind"] for row in rows] == ["model", "tool", "model"]
    assert {row["api_key_id"] for row in rows} == {UUID(narrow.key_id)}
    check_exceeded(refused, scope="api_key", unit="tokens", window="month")
    assert [response.status_code for response in others] == [200, 200]
    keys = (await user.request("GET", "/users/me/api-keys")).json()["data"]
    used = {key["id"]: key["budget"] and key["budget"]["month"]["tokens"]["used"] for key in keys}
    assert used == {narrow.key_id: 3 * 9_010, wide.key_id: None}


async def test_a_call_that_no_key_can_pay_for_is_not_made(stack: Stack, user: ApiUser) -> None:
    question, key = unique(), await key_of(user, budgetTokens=50)

    events = await key.events_of(await user.create_chat(), question)

    (error,) = named(events, "error")
    assert error.data["code"] == "BUDGET_EXCEEDED"
    assert error.data["message"].startswith("This API key has no monthly token budget left.")
    assert stack.model.requests_matching(question) == []
    assert await stack.inspection.charges(turn_id_of(events)) == []


async def test_the_installations_cap_stops_everybody_and_says_nothing_of_what_others_spend(
    stack: Stack, user: ApiUser, other_user: ApiUser, admin: ApiUser
) -> None:
    waiting, spending, gate = unique(), unique(), unique("gate")
    call = ToolCall(name=GATE_TOOL, input={"gate": gate})
    little = ScriptedUsage(input_tokens=10, output_tokens=10)
    stack.model.add(Script(match=waiting, text="First. ", tool_calls=(call,), usage=little))
    much = ScriptedUsage(input_tokens=60_000, output_tokens=10)
    stack.model.add(Script(match=spending, text="Much.", usage=much))
    chats = [(each, await each.create_chat()) for each in (user, other_user)]

    async with limit_installation(admin, dailyBudgetTokens=10**15):
        budget = (await admin.request("GET", "/admin/budget")).json()["data"]
    cap = budget["day"]["tokens"]["used"] + 50_000
    async with limit_installation(admin, dailyBudgetTokens=cap):
        async with other_user.stream(chats[1][1], waiting) as stream:
            await stack.gate_tool.reached(gate)
            spent = await user.events_of(chats[0][1], spending)
            stack.gate_tool.open(gate)
            stopped = await stream.all()
        refused = [await each.post(chat, "Hello") for each, chat in chats]
        shown = (await other_user.request("GET", "/subscription/usage")).json()["data"]
    allowed = await other_user.post(chats[1][1], "Hello")

    assert spent[-1].data["status"] == "completed"
    assert (rebuild(stopped), stopped[-1].data["status"]) == ("First. ", "failed")
    (error,) = named(stopped, "error")
    resets_at = budget["day"]["resetsAt"]
    assert error.data["code"] == "BUDGET_EXCEEDED"
    assert error.data["message"] == (
        "This server has no daily token budget left. "
        f"It resets on {resets_at[:10]} {resets_at[11:16]} UTC."
    )
    assert named([*spent, *stopped], "notice") == []
    for response in refused:
        check_exceeded(response, scope="installation", unit="tokens", window="day")
    mine = shown["budget"]["day"]["tokens"]
    assert mine == {"limit": None, "used": 20, "reserved": 0, "left": None}
    assert allowed.status_code == 200
