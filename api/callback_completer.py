"""Owns waking turns whose workflow tools have answered later, from HTTP requests.

Temporal being away is no error here: the answer is stored, and the sweep tells the turn later.
"""

import structlog
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from api.temporal_absence import patience, why_away
from schema.ids import turn_workflow_id
from schema.tool_callbacks import AnsweredCall
from schema.turns import RunToolOutput, callback_activity_id

_log = structlog.get_logger(__name__)


class CallbackCompleter:
    """Ends the activities that wait for callbacks."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def complete(self, call: AnsweredCall) -> bool:
        """Tell the turn that a call was answered; False where nothing of it waits yet, or any more.

        A turn that begins to wait only now looks into the database first.
        """
        handle = self._client.get_async_activity_handle(
            workflow_id=turn_workflow_id(call.turn_id),
            run_id=None,
            activity_id=callback_activity_id(call.step, call.tool_call_id),
        )
        try:
            async with patience():
                await handle.complete(RunToolOutput(status=call.status))
        except (RPCError, RuntimeError, TimeoutError) as error:
            cause = why_away(error)
            if cause != RPCStatusCode.NOT_FOUND.name:
                _log.warning("callback_postponed", turn_id=str(call.turn_id), cause=cause)
            return False
        return True
