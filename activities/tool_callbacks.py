"""Owns waiting for the later answers of tools, and telling turns of those that came unheard."""

from datetime import timedelta
from typing import Final, NoReturn

from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from activities import names
from schema.ids import turn_workflow_id
from schema.tool_callbacks import AnsweredCall, DeliveryOutcome
from schema.turns import RunToolInput, RunToolOutput, callback_activity_id
from services.turns.tool_calls import ToolCallGoneError
from services.workflow_tools.delivery import CallbackDelivery

_PATIENCE: Final = timedelta(seconds=5)


class CallbackActivities:
    """What the workflows `ChatTurn` and `DeliverCallbacks` do about answers that come later."""

    def __init__(self, client: Client, delivery: CallbackDelivery) -> None:
        self._client = client
        self._delivery = delivery

    @activity.defn(name=names.AWAIT_CALLBACK)
    async def await_callback(self, call: RunToolInput) -> RunToolOutput:
        """Return how the call has ended, or leave that to whoever takes its answer.

        It is looked for once the activity has begun: an answer that is stored before then is
        found here, and one that is stored later finds the activity.
        Errors: ApplicationError `TurnStopped`, final, where the call was deleted.
        """
        try:
            status = await self._delivery.final_status(call)
        except ToolCallGoneError as error:
            raise ApplicationError(
                str(error), type=names.TURN_STOPPED, non_retryable=True
            ) from None
        if status is None:
            _complete_later()
        return RunToolOutput(status=status)

    @activity.defn(name=names.DELIVER_CALLBACKS)
    async def deliver_callbacks(self) -> DeliveryOutcome:
        """Tell turns of answers that are stored and that they may not have heard of.

        Idempotency: a turn that knows has no such activity any more.
        """
        delivered = 0
        for call in await self._delivery.answered():
            delivered += await self._deliver(call)
            activity.heartbeat()
        return DeliveryOutcome(delivered=delivered)

    async def _deliver(self, call: AnsweredCall) -> bool:
        handle = self._client.get_async_activity_handle(
            workflow_id=turn_workflow_id(call.turn_id),
            run_id=None,
            activity_id=callback_activity_id(call.step, call.tool_call_id),
        )
        try:
            await handle.complete(RunToolOutput(status=call.status), rpc_timeout=_PATIENCE)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return False
        return True


def _complete_later() -> NoReturn:
    """Leave the activity open, as Temporal's own function does without saying so to checkers."""
    activity.raise_complete_async()
