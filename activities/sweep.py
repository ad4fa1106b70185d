"""Owns the sweep's look at turns and workflows: which turns has everybody forgotten?"""

from datetime import timedelta
from typing import Any, Final

from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from activities import names
from schema.ids import turn_workflow_id
from schema.turns import StrandedTurns, TurnReference
from services.turns.stranded import StrandedTurnSearch

_SETTLED: Final = timedelta(seconds=5)
"""Younger turns are still being started by whoever accepted them."""


class SweepActivities:
    """What the workflow `SweepTurns` does outside itself."""

    def __init__(self, client: Client, search: StrandedTurnSearch) -> None:
        self._client = client
        self._search = search

    @activity.defn(name=names.FIND_STRANDED_TURNS)
    async def find_stranded_turns(self) -> StrandedTurns:
        """Return turns to start, and turns to close because their workflow is gone."""
        to_start = list(await self._search.activate_waiting(older_than=_SETTLED))
        to_close: list[TurnReference] = []
        for turn in await self._search.active(older_than=_SETTLED):
            status = await self._workflow_status(turn.reference)
            activity.heartbeat()
            if status is None and not turn.has_begun:
                to_start.append(turn.reference)
            elif status is not WorkflowExecutionStatus.RUNNING:
                to_close.append(turn.reference)
            elif turn.is_to_stop:
                # Temporal was away when the wish came; asking twice is harmless.
                await self._handle(turn.reference).cancel()
        return StrandedTurns(to_start=tuple(to_start), to_close=tuple(to_close))

    async def _workflow_status(self, turn: TurnReference) -> WorkflowExecutionStatus | None:
        """Return how the turn's workflow stands, or None where Temporal knows of none."""
        try:
            return (await self._handle(turn).describe()).status
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return None
            raise

    def _handle(self, turn: TurnReference) -> WorkflowHandle[Any, Any]:
        return self._client.get_workflow_handle(turn_workflow_id(turn.turn_id))
