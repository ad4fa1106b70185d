"""Alerts reach the operator's webhook: signed, at least once, however the receiver behaves."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from activities.alerts import AlertActivities, DeliveryStarter, start_delivery
from schema.actors import SERVICE, Actor
from schema.alerts import Alert, AlertFilter, AlertKind, AlertSeverity
from schema.audit import ResourceType
from schema.ids import UserId
from schema.names import ALERT_DELIVERY_ID
from schema.pages import PageRequest
from services.alerts import raise_alert
from services.alerts.delivery import MOST_ATTEMPTS, AlertDelivery, AlertWebhook
from services.outgoing.client import OutgoingClient
from tests.fakes.raw_server import Answer, RawServer, answered, saying, serving_raw
from tests.fakes.webhook_engine import (
    SECRET,
    Behaviour,
    ReceivedCall,
    WebhookEngine,
    at_once,
    failing,
    never,
    webhook_engine,
)
from tests.fixtures.api_user import ApiUser
from tests.fixtures.stack import Stack

HOOK = "alerts"
DeliveryTo = Callable[[str], AlertDelivery]


@pytest.fixture(autouse=True)
async def nothing_else(stack: Stack) -> None:
    """Start without alerts that other tests have raised."""
    await stack.inspection.execute("DELETE FROM alerts")


@pytest.fixture
async def engine() -> AsyncIterator[WebhookEngine]:
    """The receiver."""
    async with webhook_engine() as serving:
        yield serving


@pytest.fixture
async def delivery_to(stack: Stack) -> AsyncIterator[DeliveryTo]:
    """What delivers to a URL."""
    async with OutgoingClient(allowed_hosts=("127.0.0.1",)) as outgoing:
        yield lambda url: AlertDelivery(
            stack.foundation.database, AlertWebhook(outgoing, url, SECRET.encode())
        )


@pytest.fixture
def delivery(engine: WebhookEngine, delivery_to: DeliveryTo) -> AlertDelivery:
    """What delivers to the receiver."""
    return delivery_to(engine.url(HOOK))


async def raised(stack: Stack, user: ApiUser | None = None) -> UUID:
    async with stack.foundation.database.transaction(SERVICE) as session:
        alert_id = await raise_alert(
            session,
            AlertKind.BUDGET_REACHED,
            AlertSeverity.WARNING,
            user_id=None if user is None else UserId(UUID(user.id)),
            resource=(ResourceType.PLAN, "a plan"),
            details={"threshold": 80, "limit": "2.50"},
        )
    assert alert_id is not None
    return alert_id


async def row_of(stack: Stack, alert_id: UUID) -> dict[str, Any]:
    (row,) = await stack.inspection.rows(
        "SELECT *, next_attempt_at - now() AS pause FROM alerts WHERE id = $1", alert_id
    )
    return row


async def make_due(stack: Stack) -> None:
    await stack.inspection.execute("UPDATE alerts SET next_attempt_at = now()")


async def listed(stack: Stack, administrator: Actor) -> list[Alert]:
    alerts = stack.services.operations.alerts
    return list((await alerts.list_alerts(administrator, AlertFilter(), PageRequest(100))).items)


async def test_an_alert_is_sent_once_signed_with_its_id_as_the_key(
    stack: Stack,
    user: ApiUser,
    *,
    administrator: Actor,
    engine: WebhookEngine,
    delivery: AlertDelivery,
) -> None:
    alert_id = await raised(stack, user)

    first, again = await delivery.deliver_due(), await delivery.deliver_due()

    (call,) = engine.calls[HOOK]
    (alert,) = await listed(stack, administrator)
    assert (first.delivered, first.failed, again.delivered) == (1, 0, 0)
    assert call.body == {
        "id": str(alert_id),
        "kind": "budget.reached",
        "severity": "warning",
        "userId": user.id,
        "resource": {"type": "plan", "id": "a plan"},
        "details": {"threshold": 80, "limit": "2.50"},
        "createdAt": json.loads(alert.model_dump_json(by_alias=True))["createdAt"],
    }
    assert call.is_signed()
    assert call.headers["idempotency-key"] == call.headers["webhook-id"] == str(alert_id)
    assert (alert.delivery_status, alert.delivery_attempts) == ("delivered", 1)
    assert alert.delivered_at is not None


async def test_an_alert_without_user_and_resource_says_so(
    stack: Stack, engine: WebhookEngine, delivery: AlertDelivery
) -> None:
    async with stack.foundation.database.transaction(SERVICE) as session:
        await raise_alert(session, AlertKind.DEFECT, AlertSeverity.CRITICAL)

    await delivery.deliver_due()

    (call,) = engine.calls[HOOK]
    assert (call.body["userId"], call.body["resource"]) == (None, None)


@pytest.mark.parametrize("behaviour", [failing(500), failing(404), failing(307), failing(410)])
async def test_an_alert_that_is_refused_is_sent_again_after_a_pause(
    stack: Stack, engine: WebhookEngine, delivery: AlertDelivery, behaviour: Behaviour
) -> None:
    alert_id = await raised(stack)
    engine.script(HOOK, behaviour, at_once("thanks"))

    refused = await delivery.deliver_due()
    too_early = await delivery.deliver_due()
    waiting = await row_of(stack, alert_id)
    await make_due(stack)
    await delivery.deliver_due()

    calls = engine.calls[HOOK]
    assert (refused.delivered, refused.failed) == (0, 1)
    assert (too_early.delivered, too_early.failed) == (0, 0)
    assert waiting["delivery_status"] == "pending"
    assert waiting["delivery_problem"]
    assert timedelta() < waiting["pause"] <= timedelta(seconds=15)
    assert [call.headers["idempotency-key"] for call in calls] == [str(alert_id)] * 2
    assert calls[0].raw == calls[1].raw
    sent = await row_of(stack, alert_id)
    assert (sent["delivery_status"], sent["delivery_attempts"]) == ("delivered", 2)
    assert sent["delivery_problem"] is None


async def test_the_receiver_may_ask_for_a_longer_pause_of_an_hour_at_most(
    stack: Stack, engine: WebhookEngine, delivery: AlertDelivery
) -> None:
    alert_id = await raised(stack)
    engine.script(HOOK, failing(503, headers={"Retry-After": "86400"}))

    await delivery.deliver_due()

    pause: timedelta = (await row_of(stack, alert_id))["pause"]
    assert timedelta(minutes=50) < pause <= timedelta(hours=1)


async def test_pauses_grow_and_after_a_day_the_alert_is_given_up(
    stack: Stack, engine: WebhookEngine, delivery: AlertDelivery
) -> None:
    alert_id = await raised(stack)
    engine.script(HOOK, failing(500))
    pauses: list[timedelta] = []

    for _ in range(MOST_ATTEMPTS + 2):
        await make_due(stack)
        await delivery.deliver_due()
        pauses.append((await row_of(stack, alert_id))["pause"])

    given_up = await row_of(stack, alert_id)
    between = pauses[: MOST_ATTEMPTS - 1]
    assert len(engine.calls[HOOK]) == MOST_ATTEMPTS
    assert between[:8] == sorted(between[:8])
    assert timedelta(hours=23) < sum(between, timedelta()) < timedelta(hours=25)
    assert given_up["delivery_status"] == "failed"
    assert given_up["delivery_problem"] == "The webhook answered with status 500."


@pytest.mark.parametrize(
    ("attempts", "status", "calls"), [(0, "delivered", 2), (MOST_ATTEMPTS - 1, "failed", 1)]
)
async def test_a_process_that_dies_after_sending_neither_loses_an_alert_nor_repeats_it_for_ever(
    stack: Stack,
    engine: WebhookEngine,
    delivery: AlertDelivery,
    *,
    attempts: int,
    status: str,
    calls: int,
) -> None:
    alert_id = await raised(stack)
    await stack.inspection.execute("UPDATE alerts SET delivery_attempts = $1", attempts)
    released = asyncio.Event()
    engine.script(HOOK, never(released), at_once("thanks"))

    dying = asyncio.create_task(delivery.deliver_due())
    await engine.wait_for_call(HOOK)
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    released.set()
    left = await row_of(stack, alert_id)
    await make_due(stack)
    await delivery.deliver_due()

    assert (left["delivery_status"], left["delivery_attempts"]) == ("pending", attempts + 1)
    keys = [call.headers["idempotency-key"] for call in engine.calls[HOOK]]
    assert keys == [str(alert_id)] * calls
    assert (await row_of(stack, alert_id))["delivery_status"] == status


async def test_two_processes_send_each_alert_once(
    stack: Stack, engine: WebhookEngine, delivery: AlertDelivery
) -> None:
    alerts = {str(await raised(stack)) for _ in range(20)}

    await asyncio.gather(*(delivery.deliver_due() for _ in range(3)))

    assert sorted(call.body["id"] for call in engine.calls[HOOK]) == sorted(alerts)


async def test_an_alert_that_the_receiver_refuses_holds_up_no_other(
    stack: Stack, engine: WebhookEngine, delivery: AlertDelivery
) -> None:
    refused, taken = await raised(stack), await raised(stack)

    async def refuse_one(call: ReceivedCall) -> Any:  # noqa: ANN401 -- as the engine has it
        behaviour = failing(400) if call.body["id"] == str(refused) else at_once("thanks")
        return await behaviour(call)

    engine.script(HOOK, refuse_one)

    await delivery.deliver_due()

    assert (await row_of(stack, refused))["delivery_status"] == "pending"
    assert (await row_of(stack, taken))["delivery_status"] == "delivered"


async def endless(_: RawServer, writer: Any) -> None:  # noqa: ANN401 -- a stream's writer
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
        await writer.drain()


@pytest.mark.parametrize(
    "answer",
    [
        saying(b"hello\r\n\r\n"),
        saying(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000),
        saying(answered(b"", "Location: http://127.0.0.1:1/", status="302 Found")),
        endless,
    ],
    ids=["no HTTP", "long head", "redirect", "endless"],
)
async def test_a_hostile_receiver_costs_an_attempt(
    stack: Stack, delivery_to: DeliveryTo, answer: Answer
) -> None:
    alert_id = await raised(stack)

    async with serving_raw(answer) as server:
        outcome = await delivery_to(server.url).deliver_due()

    row = await row_of(stack, alert_id)
    assert (outcome.delivered, outcome.failed) == (0, 1)
    assert (row["delivery_status"], row["delivery_attempts"]) == ("pending", 1)
    assert row["delivery_problem"]


async def test_a_receiver_that_is_slow_is_left_after_a_bound(
    stack: Stack,
    engine: WebhookEngine,
    delivery: AlertDelivery,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alert_id, released = await raised(stack), asyncio.Event()
    engine.script(HOOK, never(released))
    monkeypatch.setattr("services.alerts.delivery._TIMEOUT_S", 0.1)

    await delivery.deliver_due()
    released.set()

    assert (await row_of(stack, alert_id))["delivery_problem"] == "The request timed out."


async def test_a_receiver_that_is_gone_costs_an_attempt(
    stack: Stack, delivery_to: DeliveryTo
) -> None:
    alert_id = await raised(stack)

    await delivery_to("http://127.0.0.1:1/").deliver_due()

    assert (await row_of(stack, alert_id))["delivery_problem"] == "Connection failed."


async def test_a_private_address_gets_no_request(stack: Stack, engine: WebhookEngine) -> None:
    alert_id = await raised(stack)

    async with OutgoingClient(allowed_hosts=()) as outgoing:
        webhook = AlertWebhook(outgoing, engine.url(HOOK), b"key")
        await AlertDelivery(stack.foundation.database, webhook).deliver_due()

    assert engine.calls[HOOK] == []
    assert "private address" in (await row_of(stack, alert_id))["delivery_problem"]


async def test_alerts_from_before_a_webhook_is_set_are_not_sent_to_it(
    stack: Stack, engine: WebhookEngine, delivery: AlertDelivery
) -> None:
    without = AlertDelivery(stack.foundation.database, None)
    before = await raised(stack)

    due_without = await without.is_any_due()
    due_later = await delivery.is_any_due()
    after = await raised(stack)
    due_then = await delivery.is_any_due()
    await delivery.deliver_due()

    assert (due_without, due_later, due_then) == (False, False, True)
    assert [call.body["id"] for call in engine.calls[HOOK]] == [str(after)]
    assert (await row_of(stack, before))["delivery_status"] == "stored"


async def test_deleting_a_user_deletes_what_was_to_be_sent_of_them(
    stack: Stack, user: ApiUser, engine: WebhookEngine, delivery: AlertDelivery
) -> None:
    await raised(stack, user)

    await stack.inspection.execute("DELETE FROM users WHERE id = $1", UUID(user.id))
    await delivery.deliver_due()

    assert engine.calls[HOOK] == []


@pytest.fixture
def with_webhook(
    stack: Stack, delivery: AlertDelivery, monkeypatch: pytest.MonkeyPatch
) -> AlertActivities:
    """The stack's activities, with a webhook."""
    monkeypatch.setattr(stack.activities.alerts, "_delivery", delivery)
    return stack.activities.alerts


async def test_a_raised_alert_is_sent_at_once_by_a_workflow(
    stack: Stack, engine: WebhookEngine, with_webhook: AlertActivities
) -> None:
    alert_ids = {str(await raised(stack)) for _ in range(40)}

    DeliveryStarter(stack.temporal)()
    await engine.wait_for_call(HOOK)
    async with asyncio.timeout(20):
        outcome = await stack.temporal.get_workflow_handle(ALERT_DELIVERY_ID).result()

    assert outcome == {"delivered": 40, "failed": 0}
    assert {call.body["id"] for call in engine.calls[HOOK]} == alert_ids
    assert not await with_webhook.is_any_due()


async def test_a_run_ends_when_the_receiver_takes_nothing(
    stack: Stack, engine: WebhookEngine, with_webhook: AlertActivities
) -> None:
    for _ in range(20):
        await raised(stack)
    engine.script(HOOK, failing(503))

    await start_delivery(stack.temporal)
    async with asyncio.timeout(20):
        outcome = await stack.temporal.get_workflow_handle(ALERT_DELIVERY_ID).result()

    assert outcome == {"delivered": 0, "failed": 16}
    assert await with_webhook.is_any_due()
