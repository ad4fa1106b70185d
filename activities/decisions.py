"""Delivery of approvals and denials that the turns' workflows have not received."""

from datetime import timedelta
from typing import Final

from temporalio import activity
from temporalio.client import Client

from activities import names
from activities.turn_workflows import TurnWorkflows
from schema.tool_callbacks import DeliveryOutcome
from services.turns.approvals import ToolApprovals

_DELIVERED_WITHIN: Final = timedelta(seconds=10)
"""A signal that the API sent arrives at once, or not at all."""


class DecisionActivities:
    """Activities of the workflow `DeliverCallbacks` that concern approvals."""

    def __init__(self, client: Client, approvals: ToolApprovals) -> None:
        self._workflows = TurnWorkflows(client)
        self._approvals = approvals

    @activity.defn(name=names.TELL_DECISIONS)
    async def tell_decisions(self) -> DeliveryOutcome:
        """Signal stored decisions to the turns that still wait for them.

        Idempotency: a workflow ignores a decision that it has already received.
        """
        delivered = 0
        for decided in await self._approvals.unheard(older_than=_DELIVERED_WITHIN):
            delivered += await self._workflows.signal_decision(decided.turn_id, decided.call)
            activity.heartbeat()
        return DeliveryOutcome(delivered=delivered)
