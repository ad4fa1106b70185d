"""The delivery of alerts to the operator's webhook; started where an alert is due.

How often each one is tried, and when, is in the database: no run waits for a receiver that is
unavailable.
"""

from datetime import timedelta
from typing import Final

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities import names
    from schema.alerts import AlertDeliveryOutcome
    from schema.names import DELIVER_ALERTS
    from workflows.retries import ONCE

_MOST_ROUNDS: Final = 200
"""A backlog beyond it is left to the next run, so that no history becomes long."""


@workflow.defn(name=DELIVER_ALERTS)
class DeliverAlerts:
    """One delivery of what is due. What fails is due again later."""

    @workflow.run
    async def run(self) -> AlertDeliveryOutcome:
        """Send alerts until none is due, or the receiver takes none."""
        delivered = failed = 0
        for _ in range(_MOST_ROUNDS):
            sent = await workflow.execute_activity(
                names.DELIVER_ALERTS,
                result_type=AlertDeliveryOutcome,
                start_to_close_timeout=timedelta(minutes=1),
                heartbeat_timeout=timedelta(seconds=10),
                retry_policy=ONCE,
            )
            delivered, failed = delivered + sent.delivered, failed + sent.failed
            workflow.set_current_details(f"{delivered} delivered, {failed} failed")
            if not sent.delivered:
                break
        return AlertDeliveryOutcome(delivered=delivered, failed=failed)
