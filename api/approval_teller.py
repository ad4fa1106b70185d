"""Owns telling the workflows of turns what people decided about their tool calls.

Temporal being away is no error here: the decision is kept, and a sweep tells it later.
"""

import structlog
from temporalio.client import Client
from temporalio.service import RPCError

from api.temporal_absence import patience, why_away
from schema.ids import turn_workflow_id
from schema.turns import DecidedToolCall, ToolCallKey
from workflows.chat_turn import ChatTurn

_log = structlog.get_logger(__name__)


class ApprovalTeller:
    """Tells workflows of decisions."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def tell(self, call: DecidedToolCall) -> None:
        """Tell the turn of a call; twice is harmless."""
        handle = self._client.get_workflow_handle(turn_workflow_id(call.turn_id))
        key = ToolCallKey(step=call.step, tool_call_id=call.tool_call_id)
        try:
            async with patience():
                await handle.signal(ChatTurn.tool_call_decided, key)
        except (RPCError, RuntimeError, TimeoutError) as error:
            cause = why_away(error)
            _log.warning("decision_untold", turn_id=str(call.turn_id), cause=cause)
