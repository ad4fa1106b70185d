"""Calls that a budget refuses raise an alert: critical where nothing else would fit either."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from temporalio.client import Client

from schema.actors import acting_user
from schema.budgets import BudgetExceeded, BudgetScope, BudgetUnit, BudgetWindow
from schema.chats import SendMessageRequest
from schema.ids import ChatId
from schema.result import Err
from services.subscriptions.budget_alerts import BudgetAlerts
from services.tools.definition import ToolExecution
from services.tools.ledger import ToolLedger
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.budgets import Spender
from tests.fixtures.stack import Stack
from workers.composition.api import open_api_services


def refusal(unit: BudgetUnit = BudgetUnit.USD) -> BudgetExceeded:
    return BudgetExceeded(
        scope=BudgetScope.USER,
        unit=unit,
        window=BudgetWindow.MONTH,
        resets_at=datetime(2100, 1, 1, tzinfo=UTC),
    )


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


async def severities(spender: Spender) -> list[str]:
    return [row["severity"] for row in await spender.alerts()]


async def test_a_call_that_alone_is_too_dear_is_a_warning_and_a_critical_refusal_may_follow(
    spender: Spender,
) -> None:
    await spender.limit("budget_usd", Decimal(1))
    alerts = BudgetAlerts(spender.stack.foundation.database, lambda: None)
    short = Decimal("0.61")

    await alerts.refused(spender.user_id, refusal())
    too_dear = await severities(spender)
    await spender.spend("0.4")
    for _ in range(2):
        await alerts.refused(spender.user_id, refusal(), least=short)

    assert too_dear == ["warning"]
    assert await severities(spender) == ["critical", "warning"]
    used = [row["details"]["used"] for row in await spender.alerts()]
    assert used == ["0.4", "0"]


async def test_after_a_critical_refusal_others_are_no_news(spender: Spender) -> None:
    await spender.limit("budget_usd", Decimal(1))
    alerts = BudgetAlerts(spender.stack.foundation.database, lambda: None)
    await alerts.refused(spender.user_id, refusal(), least=Decimal(2))

    await alerts.refused(spender.user_id, refusal())

    assert await severities(spender) == ["critical"]


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

    events = await user.events_of(chat, unique())

    assert [event.data["code"] for event in events if event.name == "error"] == ["BUDGET_EXCEEDED"]
    assert await spender.reached() == [100]
    assert await severities(spender) == ["critical"]


async def test_a_long_prompt_that_does_not_fit_is_a_warning(
    user: ApiUser, stack: Stack, spender: Spender
) -> None:
    await spender.limit("daily_budget_tokens", 2_000)
    chat = await user.create_chat()

    events = await user.events_of(chat, "A long question. " * 1_000)

    assert [event.data["code"] for event in events if event.name == "error"] == ["BUDGET_EXCEEDED"]
    assert await severities(spender) == ["warning"]


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


async def test_the_alert_of_a_message_that_is_refused_is_sent_at_once(
    user: ApiUser, stack: Stack, spender: Spender, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = asyncio.Event()

    async def start(_: Client) -> None:
        started.set()

    monkeypatch.setattr("activities.alerts.start_delivery", start)
    webhook = {"alert_webhook_url": "https://alerts.example.com/"}
    settings = stack.settings.model_copy(update=webhook)
    foundation = replace(stack.foundation, settings=settings)
    await spender.limit("budget_usd", Decimal(0))
    chat = ChatId(UUID(await user.create_chat()))
    async with open_api_services(foundation, stack.temporal, eager=False) as services:
        refused = await services.turns.acceptance.accept(
            acting_user(spender.user_id),
            chat,
            SendMessageRequest(content="Hello"),
            key=None,
        )
        async with asyncio.timeout(10):
            await started.wait()

    assert isinstance(refused, Err)


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
