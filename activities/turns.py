"""The activities of a turn except its tools: prepare it, call the model, finish it."""

from datetime import timedelta

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import names
from activities.heartbeats import TurnHeartbeats
from activities.user_shares import UserShares
from schema.errors import TURN_MESSAGES, ErrorCode
from schema.turns import (
    CallModelInput,
    CallModelOutput,
    FinishTurnInput,
    FinishTurnOutput,
    PrepareTurnOutput,
    TurnReference,
)
from services.metrics import count_model_failure
from services.models.failures import ModelCallError
from services.subscriptions.budget_alerts import BudgetAlerts
from services.subscriptions.budgets import OverBudgetError
from services.turns.ending import TurnEnding
from services.turns.model_calls import ModelCalls
from services.turns.preparation import PromptTooLargeError, TurnPreparation
from services.turns.steps import Claim, TurnStoppedError

_log = structlog.get_logger(__name__)


class TurnActivities:
    """What the workflow `ChatTurn` does outside itself, except tools."""

    def __init__(
        self,
        preparation: TurnPreparation,
        model_calls: ModelCalls,
        ending: TurnEnding,
        heartbeats: TurnHeartbeats,
        *,
        budgets: BudgetAlerts,
        shares: UserShares,
    ) -> None:
        self._budgets = budgets
        self._preparation = preparation
        self._model_calls = model_calls
        self._ending = ending
        self._heartbeats = heartbeats
        self._shares = shares

    @activity.defn(name=names.PREPARE_TURN)
    async def prepare_turn(self, turn: TurnReference) -> PrepareTurnOutput:
        """Mark the turn as running and decide which part of its chat is sent to the model."""
        return await self._preparation.prepare(turn)

    @activity.defn(name=names.BEGIN_TURN)
    async def begin_turn(self, call: CallModelInput) -> CallModelOutput:
        """Prepare the turn and call the model for its first step, in one transaction.

        Errors: as of `call_model`; `PromptTooLarge`, final.
        """
        return await self._call(call, begins=True)

    @activity.defn(name=names.CALL_MODEL)
    async def call_model(self, call: CallModelInput) -> CallModelOutput:
        """Call the model for one step, streaming its answer to the turn's clients.

        With its last answer the turn is ended, too: that saves its clients a round trip through
        the workflow, and the history an event.
        Errors: ApplicationError `ModelExhausted` or `ModelFailed`, final, with the error code
        and its sentence as details; `BudgetExceeded`, final, with the same details; `TurnStopped`,
        final; DefectError; any other, e.g. `ShareTaken`, is retried.
        """
        return await self._call(call, begins=False)

    async def _call(self, call: CallModelInput, *, begins: bool) -> CallModelOutput:
        info = activity.info()
        claim = Claim(
            run_id=info.workflow_run_id or "",
            activity_id=info.activity_id,
            activity_attempt=info.attempt,
        )
        async with self._shares.place(call.turn.user_id), self._heartbeats.of(call.turn.turn_id):
            try:
                answer = await self._model_calls.run(call, claim, begins=begins)
            except ModelCallError as error:
                count_model_failure(call.model, error.kind)
                _log.warning(
                    "model_call_failed",
                    step=call.step,
                    model=call.model,
                    final=error.exhausted,
                    reason=str(error),
                )
                raise _failure_of(error) from None
            except OverBudgetError as error:
                turn = call.turn
                await self._budgets.refused(
                    turn.user_id, error.refusal, turn_id=turn.turn_id, least=error.shortest
                )
                raise ApplicationError(
                    str(error),
                    ErrorCode.BUDGET_EXCEEDED.value,
                    error.refusal.message,
                    type=names.BUDGET_EXCEEDED,
                    non_retryable=True,
                ) from None
            except PromptTooLargeError as error:
                code = ErrorCode.PAYLOAD_TOO_LARGE
                raise ApplicationError(
                    str(error),
                    code.value,
                    TURN_MESSAGES[code],
                    type=names.PROMPT_TOO_LARGE,
                    non_retryable=True,
                ) from None
            except TurnStoppedError as error:
                raise ApplicationError(
                    str(error), type=names.TURN_STOPPED, non_retryable=True
                ) from None
        return answer

    @activity.defn(name=names.FINISH_TURN)
    async def finish_turn(self, ending: FinishTurnInput) -> FinishTurnOutput:
        """End the turn: message, cost, what is due after it, last events, the chat's next turn."""
        finish = self._ending.finish_bare if ending.bare else self._ending.finish
        return await finish(ending)


def _failure_of(error: ModelCallError) -> ApplicationError:
    kind = names.MODEL_EXHAUSTED if error.retryable else names.MODEL_FAILED
    return ApplicationError(
        f"Model call failed: {error.kind.value}",
        error.code.value,
        error.sentence,
        type=kind,
        non_retryable=error.exhausted,
        next_retry_delay=_delay(error),
    )


def _delay(error: ModelCallError) -> timedelta | None:
    return None if error.exhausted else error.retry_after
