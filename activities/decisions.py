"""Owns telling turns of decisions about their tool calls that they did not hear of."""

from datetime import timedelta
from typing import Final

from temporalio import activity
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from activities import names
from schema.ids import turn_workflow_id
from schema.names import TOOL_CALL_DECIDED
from schema.tool_callbacks import DeliveryOutcome
from schema.turns import DecidedToolCallReference
from services.turns.approvals import ToolApprovals

_PATIENCE: Final = timedelta(seconds=5)
_HEARD_WITHIN: Final = timedelta(seconds=10)
"""Workflows hear of decisions at once, if they do."""


class DecisionActivities:
    """What the workflow `DeliverCallbacks` does about decisions of people."""

    def __init__(self, client: Client, approvals: ToolApprovals) -> None:
        self._client = client
        self._approvals = approvals

    @activity.defn(name=names.TELL_DECISIONS)
    async def tell_decisions(self) -> DeliveryOutcome:
        """Tell turns of decisions that are kept and that they still wait for.

        Idempotency: a turn that knows goes on as it does.
        """
        told = 0
        for decided in await self._approvals.unheard(older_than=_HEARD_WITHIN):
            told += await self._tell(decided)
            activity.heartbeat()
        return DeliveryOutcome(delivered=told)

    async def _tell(self, decided: DecidedToolCallReference) -> bool:
        handle = self._client.get_workflow_handle(turn_workflow_id(decided.turn_id))
        try:
            await handle.signal(TOOL_CALL_DECIDED, decided.call, rpc_timeout=_PATIENCE)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return False
        return True
