"""Owns working off what deletions have left: streams that Redis kept, workflows that still run."""

from temporalio import activity
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from activities import names
from schema.erasure import ErasureOutcome
from schema.ids import TurnId, turn_workflow_id
from services.erasure import Erasure


class ErasureActivities:
    """What the workflow `SweepErasures` does outside itself."""

    def __init__(self, client: Client, erasure: Erasure) -> None:
        self._client = client
        self._erasure = erasure

    @activity.defn(name=names.ERASE_STREAMS)
    async def erase_streams(self) -> ErasureOutcome:
        """Stop the workflows of deleted turns, and erase their streams, until none is left.

        Idempotency: a stream that is erased stays noted until that is stored; once more is
        harmless.
        """
        erased = 0
        while turn_ids := await self._erasure.pending():
            for turn_id in turn_ids:
                await self._cancel(turn_id)
                activity.heartbeat()
            if not await self._erasure.erase(turn_ids):
                return ErasureOutcome(erased=erased, is_done=False)
            erased += len(turn_ids)
        return ErasureOutcome(erased=erased, is_done=True)

    async def _cancel(self, turn_id: TurnId) -> None:
        """Stop a turn whose deletion could not tell Temporal; most have ended long ago."""
        try:
            await self._client.get_workflow_handle(turn_workflow_id(turn_id)).cancel()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
