"""The chat turn: call the model and run its tools in a loop, finish.

The first call prepares the turn, the last answer finishes it: a plain turn is one activity. What is
prepared or finished apart from that is so where a call has failed, or where there was none.
"""

import asyncio
from datetime import timedelta
from itertools import count
from typing import Final

from temporalio import workflow
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    FailureError,
    TimeoutError,  # noqa: A004 -- Temporal's name
    WorkflowAlreadyStartedError,
    is_cancelled_exception,
)

with workflow.unsafe.imports_passed_through():
    from activities import names
    from schema.errors import ErrorCode
    from schema.ids import turn_workflow_id
    from schema.names import CHAT_TURN, TASK_TIMEOUT, TOOL_CALL_DECIDED, TURNS_QUEUE
    from schema.turns import (
        PAUSED,
        CallModelInput,
        CallModelOutput,
        FinishTurnInput,
        FinishTurnOutput,
        PrepareTurnOutput,
        ToolCallKey,
        TurnOutcome,
        TurnReference,
        TurnStatus,
    )
    from workflows.child_workflows import let_go, share_of
    from workflows.retries import LONGEST_TURN, PATIENT, QUICK, cause_of
    from workflows.tool_calls import ToolCallRuns, check_cancelled
    from workflows.visibility import (
        memo_of_child,
        show_outcome,
        turn_attributes,
        turn_details,
        turn_summary,
    )

_PATCH: Final = "a-pause-is-continued"


@workflow.defn(name=CHAT_TURN)
class ChatTurn:
    """One turn of a chat. Carries references only; content stays in the database."""

    def __init__(self) -> None:
        self._tool_calls = ToolCallRuns()
        self._prepared: PrepareTurnOutput | None = None

    @workflow.signal(name=TOOL_CALL_DECIDED)
    def tool_call_decided(self, call: ToolCallKey) -> None:
        """Continue with a tool call that has been decided."""
        self._tool_calls.decided(call)

    @workflow.run
    async def run(self, turn: TurnReference) -> TurnOutcome:
        """Run the turn and end it in every case."""
        try:
            ending = await self._answer(turn)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 -- a defect ends it, too
            ending = _ending_of(turn, error)
        finished = ending if isinstance(ending, FinishTurnOutput) else await self._finish(ending)
        if finished.following is not None:
            await start_turn(finished.following)
        workflow.set_current_details(_summary(finished.outcome))
        failed = self._tool_calls.failed
        show_outcome(finished.outcome, plan=finished.plan, failed_tools=failed)
        if finished.outcome.status is TurnStatus.FAILED:
            raise ApplicationError(
                "The turn failed", type=finished.outcome.error_code, non_retryable=True
            )
        # A turn may be cancelled in the database alone; only a cancelled workflow can end as such.
        is_cancelled = workflow.cancellation_reason() is not None
        if is_cancelled and finished.outcome.status is TurnStatus.CANCELLED:
            raise asyncio.CancelledError
        return finished.outcome

    async def _answer(self, turn: TurnReference) -> FinishTurnInput | FinishTurnOutput:
        """Return how the turn is to end; or how it has ended, together with its last answer."""
        if not turn.begins_with_call:
            prepared = await self._prepare(turn)
            if prepared.ending is not None:
                return FinishTurnInput(
                    turn=turn, status=prepared.ending, error_code=prepared.error_code
                )
        corrects = False
        for step in count(1):
            check_cancelled()
            answer = await self._call_model(turn, step, corrects=corrects)
            corrects = answer.to_correct
            if answer.finished is not None:
                return answer.finished
            if not (answer.tool_calls or corrects or _is_paused(answer)):
                return FinishTurnInput(turn=turn, status=TurnStatus.COMPLETED)
            await self._tool_calls.run_all(turn, step, answer.tool_calls)
            if step == (answer.max_steps or (await self._prepare(turn)).max_steps):
                break
        return FinishTurnInput(
            turn=turn, status=TurnStatus.FAILED, error_code=ErrorCode.MAX_STEPS_EXCEEDED
        )

    async def _prepare(self, turn: TurnReference) -> PrepareTurnOutput:
        """Prepare the turn apart from its first call, once."""
        if self._prepared is None:
            self._prepared = await workflow.execute_local_activity(
                names.PREPARE_TURN,
                turn,
                result_type=PrepareTurnOutput,
                summary="prepare",
                start_to_close_timeout=timedelta(seconds=30),
                schedule_to_close_timeout=LONGEST_TURN,
                retry_policy=QUICK,
            )
        return self._prepared

    async def _call_model(
        self, turn: TurnReference, step: int, *, corrects: bool
    ) -> CallModelOutput:
        """Call the model, and after its final failure the fallback model, if there is one."""
        call = CallModelInput(turn=turn, step=step, model=turn.model)
        try:
            return await self._ask(call, corrects=corrects)
        except ActivityError as error:
            if not _is_exhausted(error):
                raise
            fallback = (await self._prepare(turn)).fallback_model
            if fallback is None:
                raise
        return await self._ask(
            call.model_copy(update={"model": fallback, "is_fallback": True}), corrects=corrects
        )

    async def _ask(self, call: CallModelInput, *, corrects: bool) -> CallModelOutput:
        what = "correction" if corrects else "model call"
        begins = call.step == 1 and call.turn.begins_with_call and not call.is_fallback
        workflow.set_current_details(f"calling {call.model} · step {call.step}")
        answer: CallModelOutput = await workflow.execute_activity(
            names.BEGIN_TURN if begins else names.CALL_MODEL,
            call,
            result_type=CallModelOutput,
            summary=f"{what} {call.step} · {call.model}",
            start_to_close_timeout=timedelta(minutes=15),
            schedule_to_close_timeout=LONGEST_TURN,
            heartbeat_timeout=timedelta(seconds=5),
            retry_policy=PATIENT,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        return answer

    async def _finish(self, ending: FinishTurnInput) -> FinishTurnOutput:
        """End the turn. A cancellation from now on changes nothing."""
        finishing = asyncio.ensure_future(_finish_somehow(ending))
        try:
            return await asyncio.shield(finishing)
        except asyncio.CancelledError:
            return await finishing


async def _finish_somehow(ending: FinishTurnInput) -> FinishTurnOutput:
    """End the turn; where its content keeps it from ending, without its content."""
    try:
        return await _finish_once(ending)
    except FailureError:
        return await _finish_once(ending.model_copy(update={"bare": True}))


async def _finish_once(ending: FinishTurnInput) -> FinishTurnOutput:
    finished: FinishTurnOutput = await workflow.execute_local_activity(
        names.FINISH_TURN,
        ending,
        result_type=FinishTurnOutput,
        summary=f"finish · {ending.status.value}",
        start_to_close_timeout=timedelta(seconds=30),
        schedule_to_close_timeout=LONGEST_TURN,
        retry_policy=QUICK,
    )
    return finished


async def start_turn(turn: TurnReference) -> None:
    """Start a turn's workflow from another, which it outlives; starting twice is harmless."""
    memo = memo_of_child(turn)
    try:
        child = await workflow.start_child_workflow(
            CHAT_TURN,
            turn,
            id=turn_workflow_id(turn.turn_id),
            task_queue=TURNS_QUEUE,
            task_timeout=TASK_TIMEOUT,
            search_attributes=turn_attributes(turn),
            static_summary=turn_summary(turn),
            static_details=turn_details(turn, memo),
            memo=memo,
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
            priority=share_of(turn.user_id),
        )
    except WorkflowAlreadyStartedError:
        workflow.logger.info("The turn's workflow is already running")
    else:
        let_go(child)


def _ending_of(turn: TurnReference, error: BaseException) -> FinishTurnInput:
    """Return how a turn ends that was cancelled or that failed.

    An activity may fail before it learns that it was cancelled; it is not retried then.
    """
    is_stopped = workflow.cancellation_reason() is not None or _is_stopped(error)
    if is_stopped or is_cancelled_exception(error):
        return FinishTurnInput(turn=turn, status=TurnStatus.CANCELLED)
    cause = cause_of(error)
    if not isinstance(cause, FailureError):
        workflow.logger.error("The turn's workflow failed unexpectedly", exc_info=error)
    code, sentence = ErrorCode.INTERNAL, None
    if isinstance(cause, TimeoutError):
        code = ErrorCode.SERVICE_UNAVAILABLE
    if isinstance(cause, ApplicationError) and cause.details:
        code, sentence = ErrorCode(cause.details[0]), str(cause.details[1])
    return FinishTurnInput(turn=turn, status=TurnStatus.FAILED, error_code=code, failure=sentence)


def _is_stopped(error: BaseException) -> bool:
    """Whether the activity found in the database that the turn is to be cancelled."""
    cause = cause_of(error)
    return isinstance(cause, ApplicationError) and cause.type == names.TURN_STOPPED


def _is_paused(answer: CallModelOutput) -> bool:
    """Whether the model continues as soon as it gets what it has said so far.

    Turns of earlier versions were completed half-way, and replay like that.
    """
    return answer.stop_reason == PAUSED and workflow.patched(_PATCH)


def _is_exhausted(error: ActivityError) -> bool:
    """Whether the provider kept failing, so that another model may succeed."""
    return isinstance(error.cause, ApplicationError) and error.cause.type == names.MODEL_EXHAUSTED


def _summary(outcome: TurnOutcome) -> str:
    return (
        f"{outcome.status.value} · {outcome.steps} steps · {outcome.usage.input_tokens} in, "
        f"{outcome.usage.output_tokens} out · {outcome.cost_usd:f} USD"
    )
