"""Workflows of turns, as seen from outside: their status, cancellation, signals and callbacks.

Used by activities, and by the API through its own gateway, which adds what a request needs.
"""

from datetime import timedelta
from typing import Any, Final

from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from schema.ids import TurnId, turn_workflow_id
from schema.names import TOOL_CALL_DECIDED
from schema.tool_callbacks import AnsweredCall
from schema.turns import RunToolOutput, ToolCallKey, callback_activity_id

_RPC_TIMEOUT: Final = timedelta(seconds=5)


class TurnWorkflows:
    """Reaches running workflows. False means that nothing runs under that id any more.

    Errors: RPCError if Temporal is unavailable.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def cancel(self, turn_id: TurnId) -> bool:
        """Request the turn's cancellation. Idempotency: repeating it is harmless."""
        try:
            await self._handle(turn_id).cancel(rpc_timeout=_RPC_TIMEOUT)
        except RPCError as error:
            return _not_found(error)
        return True

    async def signal_decision(self, turn_id: TurnId, call: ToolCallKey) -> bool:
        """Signal that a tool call was approved or denied. Idempotency: repeating is harmless."""
        handle = self._handle(turn_id)
        try:
            await handle.signal(TOOL_CALL_DECIDED, call, rpc_timeout=_RPC_TIMEOUT)
        except RPCError as error:
            return _not_found(error)
        return True

    async def complete_callback(self, call: AnsweredCall) -> bool:
        """Complete the activity that waits for a tool's callback, if it waits."""
        handle = self._client.get_async_activity_handle(
            workflow_id=turn_workflow_id(call.turn_id),
            run_id=None,
            activity_id=callback_activity_id(call.step, call.tool_call_id),
        )
        try:
            await handle.complete(RunToolOutput(status=call.status), rpc_timeout=_RPC_TIMEOUT)
        except RPCError as error:
            return _not_found(error)
        return True

    async def awaits_callback(self, call: AnsweredCall) -> bool:
        """Whether the turn still waits for a tool's callback."""
        try:
            described = await self._handle(call.turn_id).describe(rpc_timeout=_RPC_TIMEOUT)
        except RPCError as error:
            return _not_found(error)
        activity_id = callback_activity_id(call.step, call.tool_call_id)
        pending = described.raw_description.pending_activities
        return any(waiting.activity_id == activity_id for waiting in pending)

    def _handle(self, turn_id: TurnId) -> WorkflowHandle[Any, Any]:
        return self._client.get_workflow_handle(turn_workflow_id(turn_id))


async def workflow_status(client: Client, workflow_id: str) -> WorkflowExecutionStatus | None:
    """Return a workflow's status, or None if Temporal has no such workflow.

    Errors: RPCError if Temporal is unavailable.
    """
    try:
        return (
            await client.get_workflow_handle(workflow_id).describe(rpc_timeout=_RPC_TIMEOUT)
        ).status
    except RPCError as error:
        _not_found(error)
        return None


def _not_found(error: RPCError) -> bool:
    """Return False for a missing workflow or activity; re-raise any other error."""
    if error.status is not RPCStatusCode.NOT_FOUND:
        raise error
    return False
