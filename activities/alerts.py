"""The activity of the workflow `DeliverAlerts`, and what starts that as soon as an alert is raised.

Delivery is no part of what raised the alert: nothing waits for it, and the sweeper starts it
where this could not.
"""

import asyncio
from datetime import timedelta
from typing import Final

import structlog
from temporalio import activity
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError

from activities import names
from activities.heartbeats import heartbeats
from schema.alerts import AlertDeliveryOutcome
from schema.names import ALERT_DELIVERY_ID, BACKGROUND_QUEUE, DELIVER_ALERTS
from services.alerts import OnAlert
from services.alerts.delivery import AlertDelivery
from services.settings import Settings

_log = structlog.get_logger(__name__)

_RPC_TIMEOUT: Final = timedelta(seconds=5)


class AlertActivities:
    """What the workflow `DeliverAlerts` does outside itself."""

    def __init__(self, delivery: AlertDelivery) -> None:
        self._delivery = delivery

    async def is_any_due(self) -> bool:
        """Whether `DeliverAlerts` has anything to do; no activity.

        Errors: DatabaseUnavailableError.
        """
        return await self._delivery.is_any_due()

    @activity.defn(name=names.DELIVER_ALERTS)
    async def deliver_alerts(self) -> AlertDeliveryOutcome:
        """Send the alerts that are due to the webhook, a few at a time.

        Idempotency: what was sent by a process that died is sent again, with the same key.
        """
        async with heartbeats():
            return await self._delivery.deliver_due()


async def start_delivery(client: Client) -> None:
    """Start `DeliverAlerts` unless it runs. Errors: RPCError."""
    await client.start_workflow(
        DELIVER_ALERTS,
        id=ALERT_DELIVERY_ID,
        task_queue=BACKGROUND_QUEUE,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        static_summary="delivery of alerts",
        rpc_timeout=_RPC_TIMEOUT,
    )


def delivery_starter(settings: Settings, client: Client) -> OnAlert:
    """Return what starts the delivery of alerts if there is a webhook to deliver them to."""
    return DeliveryStarter(client) if settings.alert_webhook_url is not None else lambda: None


class DeliveryStarter:
    """Starts `DeliverAlerts` in the background, without making anyone wait."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._starting: asyncio.Task[None] | None = None

    def __call__(self) -> None:
        """Start the delivery of an alert whose transaction has committed."""
        if self._starting is None or self._starting.done():
            self._starting = asyncio.create_task(self._start())

    async def _start(self) -> None:
        try:
            await start_delivery(self._client)
        except (RPCError, RuntimeError) as error:
            # The second where Temporal was never reached.
            _log.warning("alert_delivery_not_started", error=type(error).__name__)
