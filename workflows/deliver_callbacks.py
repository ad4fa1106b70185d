"""Owns the sweep behind tool calls that wait: answers and decisions that no turn was told of."""

import asyncio
from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities import names
    from schema.names import DELIVER_CALLBACKS
    from schema.tool_callbacks import DeliveryOutcome
    from workflows.retries import ONCE


@workflow.defn(name=DELIVER_CALLBACKS)
class DeliverCallbacks:
    """One sweep. What fails is left to the next one."""

    @workflow.run
    async def run(self) -> DeliveryOutcome:
        """Tell the turns that still wait, be it for a tool or for a person."""
        answers, decisions = await asyncio.gather(
            _deliver(names.DELIVER_CALLBACKS), _deliver(names.TELL_DECISIONS)
        )
        return DeliveryOutcome(delivered=answers.delivered + decisions.delivered)


async def _deliver(activity: str) -> DeliveryOutcome:
    outcome: DeliveryOutcome = await workflow.execute_activity(
        activity,
        result_type=DeliveryOutcome,
        start_to_close_timeout=timedelta(minutes=4),
        heartbeat_timeout=timedelta(seconds=30),
        retry_policy=ONCE,
    )
    return outcome
