"""Clean-up after deletions: streams that Redis still holds, workflows that still run."""

from temporalio import activity
from temporalio.client import Client

from activities import names
from activities.turn_workflows import TurnWorkflows
from schema.erasure import ErasureOutcome
from services.erasure import Erasure


class ErasureActivities:
    """What the workflow `SweepErasures` does outside itself."""

    def __init__(self, client: Client, erasure: Erasure) -> None:
        self._workflows = TurnWorkflows(client)
        self._erasure = erasure

    @activity.defn(name=names.ERASE_STREAMS)
    async def erase_streams(self) -> ErasureOutcome:
        """Cancel the workflows of deleted turns and erase their streams until none is left.

        Idempotency: a stream stays listed until its erasure is stored; erasing it again is
        harmless.
        """
        erased = 0
        while turn_ids := await self._erasure.pending():
            for turn_id in turn_ids:
                await self._workflows.cancel(turn_id)
                activity.heartbeat()
            if not await self._erasure.erase(turn_ids):
                return ErasureOutcome(erased=erased, is_done=False)
            erased += len(turn_ids)
        return ErasureOutcome(erased=erased, is_done=True)
