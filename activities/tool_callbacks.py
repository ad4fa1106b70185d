"""Asynchronous tool answers: waiting for callbacks, and delivering those that were missed."""

from typing import NoReturn

from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import ApplicationError

from activities import names
from activities.turn_workflows import TurnWorkflows
from schema.tool_callbacks import AnsweredCall, DeliveryOutcome
from schema.turns import RunToolInput, RunToolOutput
from services.shielding import each_alone
from services.turns.tool_calls import ToolCallGoneError
from services.workflow_tools.callbacks import CallbackDelivery


class CallbackActivities:
    """Activities of the workflows `ChatTurn` and `DeliverCallbacks` that concern callbacks."""

    def __init__(self, client: Client, delivery: CallbackDelivery) -> None:
        self._workflows = TurnWorkflows(client)
        self._delivery = delivery

    @activity.defn(name=names.AWAIT_CALLBACK)
    async def await_callback(self, call: RunToolInput) -> RunToolOutput:
        """Return how the call ended, or stay open until its callback completes the activity.

        The check runs after the activity has started: an answer stored before is found here, and
        an answer stored later finds the activity.
        Errors: ApplicationError `TurnStopped`, final, if the call was deleted.
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
        """Complete the activities that wait for answers which are already stored.

        Idempotency: an activity that received its answer is no longer open.
        """

        async def complete(call: AnsweredCall) -> bool:
            activity.heartbeat()
            return await self._workflows.complete_callback(call)

        answered = await self._delivery.answered_calls()
        return DeliveryOutcome(delivered=sum(await each_alone(answered, complete)))


def _complete_later() -> NoReturn:
    """Leave the activity open; Temporal's own function lacks the return type `NoReturn`."""
    activity.raise_complete_async()
