"""Stranded turns: those whose workflow never started, or is gone."""

from datetime import timedelta
from typing import Final

from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus

from activities import names
from activities.turn_workflows import TurnWorkflows, workflow_status
from schema.ids import turn_workflow_id
from schema.turns import StrandedTurns, TurnReference
from services.turns.stranded import StrandedTurnSearch

_SETTLED: Final = timedelta(seconds=5)
"""Younger turns are still being started by the process that accepted them."""


class SweepActivities:
    """Activities of the workflow `SweepTurns`."""

    def __init__(self, client: Client, search: StrandedTurnSearch) -> None:
        self._client = client
        self._search = search

    @activity.defn(name=names.FIND_STRANDED_TURNS)
    async def find_stranded_turns(self) -> StrandedTurns:
        """Return turns to start, and turns to close because their workflow is gone."""
        to_start = list(await self._search.activate_waiting(older_than=_SETTLED))
        to_close: list[TurnReference] = []
        for turn in await self._search.active(older_than=_SETTLED):
            workflow_id = turn_workflow_id(turn.reference.turn_id)
            status = await workflow_status(self._client, workflow_id)
            activity.heartbeat()
            if status is None and not turn.has_begun:
                to_start.append(turn.reference)
            elif status is not WorkflowExecutionStatus.RUNNING:
                to_close.append(turn.reference)
            elif turn.is_to_stop:
                # Temporal was unavailable when the user cancelled; repeating is harmless.
                await TurnWorkflows(self._client).cancel(turn.reference.turn_id)
        return StrandedTurns(to_start=tuple(to_start), to_close=tuple(to_close))
