"""One model call: sent, streamed to clients, stored and paid for, whatever happens to it.

ModelCallError          the provider failed; `exhausted` once retrying is pointless
DefectError             something of ours failed; `exhausted` likewise
AttemptOvertakenError   another execution has the step
OverBudgetError         a budget has too little left for the call
"""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import aclosing, suppress
from functools import partial

import structlog

from schema.events import EventData
from schema.turns import (
    PAUSED,
    CallModelInput,
    CallModelOutput,
    FinishTurnInput,
    FinishTurnOutput,
    TurnStatus,
)
from schema.usage import TokenUsage
from services.events.deltas import DeltaBuffer
from services.events.writer import Appended, EventWriter, OvertakenError
from services.models.failures import ModelCallError, broken_stream
from services.models.gateway import (
    AnswerEnded,
    AnswerStarted,
    ModelGateway,
    ModelRequest,
    TextArrived,
    ThoughtArrived,
)
from services.prompts.fitting import tokens_in
from services.shielding import DefectError, shielded, until_stored
from services.subscriptions.budget_alerts import BudgetAlerts
from services.subscriptions.budgets import OverBudgetError
from services.tools.executor import ToolExecutor
from services.tools.refusals import RefusedTools, ToolTrials
from services.turns import answers
from services.turns.attempts import AttemptProgress, NewAttempt, checkpoints
from services.turns.call_outputs import CallOutputs
from services.turns.call_settings import RefusedOptions, left_out_options
from services.turns.ending import Ended, TurnEnding
from services.turns.model_requests import PromptCutting, with_less
from services.turns.preparation import TurnPreparation
from services.turns.requested_calls import StoredAnswer
from services.turns.steering import end_joined
from services.turns.steps import Abandoned, AttemptOvertakenError, Claim, Steps
from services.turns.structured_answers import AnswerChecks

_log = structlog.get_logger(__name__)


class ModelCalls:
    """Calls the model for a step of a turn."""

    def __init__(  # noqa: PLR0913 -- one for each neighbour and limit
        self,
        *,
        preparation: TurnPreparation,
        steps: Steps,
        ending: TurnEnding,
        gateway: ModelGateway,
        events: EventWriter,
        tools: ToolExecutor,
        refused: RefusedTools,
        refused_options: RefusedOptions,
        checks: AnswerChecks,
        cutting: PromptCutting,
        budgets: BudgetAlerts,
        max_output_tokens: int,
        attempts: int,
        max_tool_calls: int,
        delta_interval_s: float,
    ) -> None:
        self._preparation = preparation
        self._steps = steps
        self._ending = ending
        self._gateway = gateway
        self._events = events
        self._outputs = CallOutputs(
            tools, max_tool_calls=max_tool_calls, max_steps=preparation.rules.max_steps
        )
        self._refused = refused
        self._refused_options = refused_options
        self._checks = checks
        self._cutting = cutting
        self._budgets = budgets
        self._max_output_tokens = max_output_tokens
        self._attempts = attempts
        self._max_tool_calls = max_tool_calls
        self._delta_interval_s = delta_interval_s

    async def run(
        self, call: CallModelInput, claim: Claim, *, begins: bool = False
    ) -> CallModelOutput:
        """Call the model for the step, or return what an earlier attempt stored.

        A call that `begins` its turn prepares it first.
        Errors: ModelCallError, DefectError, AttemptOvertakenError, TurnStoppedError,
        OverBudgetError, DatabaseUnavailableError; those of TurnPreparation where the turn begins.
        Idempotency: a step whose answer is stored is never requested again.
        """
        attempt = await self._begin(call, claim, begins=begins)
        if isinstance(attempt, StoredAnswer):
            return await self._outputs.of_stored(call, attempt)
        if call.is_fallback and attempt.key.attempt > 1:
            await self._events.append(call.turn.turn_id, [answers.fallback_notice(call.model)])
        text = DeltaBuffer(
            self._events,
            turn_id=call.turn.turn_id,
            start=attempt.start,
            interval_s=self._delta_interval_s,
            ahead=answers.joined_events(attempt),
        )
        await end_joined(self._events, call.turn, attempt.joined)
        try:
            if attempt.max_tokens < attempt.settings.longest:
                await self._events.append_notice_once(call.turn.turn_id, answers.SHORT_OF_BUDGET)
            await self._clear_replaced(attempt)
            return await self._ask(call, attempt, text)
        except OvertakenError as error:
            raise AttemptOvertakenError from error

    async def _begin(
        self, call: CallModelInput, claim: Claim, *, begins: bool
    ) -> NewAttempt | StoredAnswer:
        begin = partial(
            self._steps.begin,
            call,
            claim,
            max_tokens=self._max_output_tokens,
            refused=self._refused_options.of(call.model),
        )
        if not begins:
            return await begin()
        try:
            return await begin(within=partial(self._preparation.begin, call.turn))
        except OverBudgetError:
            # The turn has begun all the same: only then does its stream say so.
            await self._preparation.prepare(call.turn)
            raise

    async def _clear_replaced(self, attempt: NewAttempt) -> None:
        """Clear the answers at clients that this step corrects."""
        for start in attempt.replaced:
            await self._events.append_attempt(
                attempt.key.turn_id, [start], step=start.step, attempt=start.attempt, has_text=True
            )

    async def _ask(
        self, call: CallModelInput, attempt: NewAttempt, text: DeltaBuffer
    ) -> CallModelOutput:
        progress = AttemptProgress()
        try:
            async with text, checkpoints(self._steps.checkpoint, attempt, text, progress):
                answer = await self._stream_fitting(attempt, text, progress)
            await text.flush(insist=True)
        except asyncio.CancelledError:
            await shielded(self._stop(attempt, text, progress))
            raise
        except OvertakenError:
            raise
        except ModelCallError as error:
            is_left = await shielded(self._fail(attempt, text, progress, asked=error.was_answering))
            error.exhausted = not (error.retryable and is_left)
            raise
        except Exception as error:
            raise await shielded(self._defect(attempt, text, progress)) from error
        return await shielded(self._complete(attempt, text, progress, answer, call=call))

    async def _stream_fitting(
        self, attempt: NewAttempt, text: DeltaBuffer, progress: AttemptProgress
    ) -> AnswerEnded:
        """Ask with as much of the conversation, and with those tools, that the provider takes.

        A refused request is free.
        """
        trials = self._refused.trials(attempt.model, attempt.offered)
        attempt = await self._cutting.cut(
            attempt, lambda attempt: self._request(attempt, trials.left_out)
        )
        if attempt.is_cut:
            await self._publish(attempt, [answers.SHORTENED])
        while True:
            try:
                return await self._stream(attempt, text, progress, trials)
            except ModelCallError as error:
                less = None if progress.has_started else with_less(attempt, error, trials)
                if less is None:
                    raise
            if less.is_cut and not attempt.is_cut:
                await self._publish(attempt, [answers.SHORTENED])
            attempt = less

    async def _stream(
        self, attempt: NewAttempt, text: DeltaBuffer, progress: AttemptProgress, trials: ToolTrials
    ) -> AnswerEnded:
        request = self._request(attempt, trials.left_out)
        progress.ask(prompt_tokens=tokens_in(attempt.material))
        async with aclosing(self._gateway.stream(request)) as events:
            async for event in events:
                match event:
                    case AnswerStarted():
                        progress.usage, progress.has_started = event.usage, True
                        await self._tell_refused(attempt, trials)
                    case ThoughtArrived():
                        text.think(event.text)
                        progress.write(attempt.model)
                    case TextArrived():
                        text.add(event.text)
                        progress.write(attempt.model)
                    case AnswerEnded():
                        progress.usage, progress.is_counted = event.usage, True
                        progress.is_estimated = event.usage_estimated
                        return event
        raise broken_stream()

    async def _tell_refused(self, attempt: NewAttempt, trials: ToolTrials) -> None:
        if notice := left_out_options(attempt.settings):
            await self._events.append_notice_once(attempt.key.turn_id, notice)
        self._refused_options.remember(attempt.model, attempt.settings.refused)
        if trials.left_out and (trials.has_new or attempt.key.step == 1):
            await self._publish(attempt, [answers.left_out_notice(trials.left_out)])
        if trials.has_new:
            trials.take_answer()
            await self._refused.remember(attempt.model, trials)

    def _request(self, attempt: NewAttempt, left_out: Collection[str]) -> ModelRequest:
        return self._cutting.request(attempt, left_out, longest=self._max_output_tokens)

    async def _complete(
        self,
        attempt: NewAttempt,
        text: DeltaBuffer,
        progress: AttemptProgress,
        answer: AnswerEnded,
        *,
        call: CallModelInput,
    ) -> CallModelOutput:
        try:
            requests = answers.tool_requests(answer, attempt.offered, at_most=self._max_tool_calls)
            schema, problem = attempt.settings.schema, None
            if schema is not None and answers.ends_turn(answer, requests):
                problem = await self._checks.problem(schema, text.text)
            to_correct = self._outputs.is_to_correct(
                call, problem, answer.stop_reason, was_corrected=bool(attempt.replaced)
            )
            store = partial(
                self._steps.complete,
                attempt,
                answer=text.text,
                thinking=text.thinking,
                problem=problem,
                blocks=answer.blocks,
                stop_reason=answer.stop_reason,
                tool_requests=requests,
                usage=answer.usage,
                prompt_tokens=progress.prompt_tokens,
                estimated=answer.usage_estimated,
            )
            is_last = not (requests or answer.stop_reason == PAUSED or to_correct)
            ending = FinishTurnInput(turn=call.turn, status=TurnStatus.COMPLETED)
            end = partial(self._ending.store, ending) if is_last else None
            completed = await until_stored(partial(store, end=end))
        except AttemptOvertakenError:
            raise
        except Exception as error:
            # An answer that can't be stored has been paid for.
            raise await self._defect(attempt, text, progress) from error
        closing = answers.closing_events(
            attempt.key.step,
            answer,
            requests,
            at_most=self._max_tool_calls,
            has_text=any(map(answers.contains_text, (*attempt.material.blocks, answer.blocks))),
        )
        spent = answers.usage_event(attempt, answer.usage, completed.cost_usd)
        notices = self._budgets.report(completed.reached)
        # The end of the turn has them, too, if it is stored.
        closing = [spent, *([] if completed.ended else notices), *closing]
        if problem is not None and not to_correct:
            closing.append(answers.misfit_notice(problem))
        is_published = await self._publish(attempt, closing, has_text=text.is_published)
        if is_published and not completed.ended:
            await self._budgets.reported(completed.reached)
        return CallModelOutput(
            stop_reason=answers.stop_word(answer.stop_reason),
            tool_calls=await self._outputs.references(completed.tool_calls),
            attempt=attempt.key.attempt,
            usage=answer.usage,
            cost_usd=completed.cost_usd,
            to_correct=to_correct,
            max_steps=self._outputs.max_steps,
            finished=await self._publish_end(completed.ended),
        )

    async def _publish_end(self, ended: Ended | None) -> FinishTurnOutput | None:
        """Publish the end of the turn, if it is stored; where that fails, the workflow does."""
        if ended is None:
            return None
        try:
            return await self._ending.publish(ended)
        except Exception:  # noqa: BLE001 -- the workflow has retries
            _log.exception("end_not_published", turn_id=str(ended.turn.turn_id))
        return None

    async def _publish(
        self, attempt: NewAttempt, events: Sequence[EventData], *, has_text: bool = False
    ) -> bool:
        """Append the events after the text, and return whether they are in the stream.

        The stored answer stands even if they are not.
        """
        key = attempt.key
        try:
            appended = await self._events.append_attempt(
                key.turn_id, events, step=key.step, attempt=key.attempt, has_text=has_text
            )
        except OvertakenError:
            _log.info("events_overtaken", turn_id=str(key.turn_id), step=key.step)
            return False
        return isinstance(appended, Appended)

    async def _stop(
        self, attempt: NewAttempt, text: DeltaBuffer, progress: AttemptProgress
    ) -> None:
        """Store the text until the cancellation, and what it cost."""
        with suppress(OvertakenError):
            await self._end(attempt, text, progress, failed=False, asked=progress.is_asked)

    async def _fail(
        self, attempt: NewAttempt, text: DeltaBuffer, progress: AttemptProgress, *, asked: bool
    ) -> bool:
        """Store the result of a failed attempt; return whether another is left for its model."""
        ended = await self._end(attempt, text, progress, failed=True, asked=asked)
        return ended.failures < self._attempts

    async def _defect(
        self, attempt: NewAttempt, text: DeltaBuffer, progress: AttemptProgress
    ) -> DefectError:
        """Store the result of an attempt that failed for a defect of ours; return its error."""
        is_left = await self._fail(attempt, text, progress, asked=progress.is_asked)
        return DefectError(exhausted=not is_left)

    async def _end(
        self,
        attempt: NewAttempt,
        text: DeltaBuffer,
        progress: AttemptProgress,
        *,
        failed: bool,
        asked: bool,
    ) -> Abandoned:
        """Store the result of an attempt without an answer.

        Errors: OvertakenError.
        """
        try:
            await text.flush(insist=True)
        except OvertakenError:
            raise
        except Exception:  # noqa: BLE001 -- whatever it is, the attempt has to end
            _log.exception("text_not_published", turn_id=str(attempt.key.turn_id))
        used, is_estimate = progress.used(
            text.written, asked=asked, estimated_input=attempt.estimated_input
        )
        ended = await self._abandon(attempt, text, used, failed=failed, estimated=is_estimate)
        spent = answers.usage_event(attempt, ended.usage, ended.cost_usd)
        ending = [spent, *self._budgets.report(ended.reached)]
        if await self._publish(attempt, ending, has_text=text.is_published):
            await self._budgets.reported(ended.reached)
        return ended

    async def _abandon(
        self,
        attempt: NewAttempt,
        text: DeltaBuffer,
        usage: TokenUsage,
        *,
        failed: bool,
        estimated: bool,
    ) -> Abandoned:
        """Store how an attempt ended; its text or its usage is left out where it can't be stored.

        Errors: whatever keeps even an estimate from being stored.
        """
        store = partial(self._steps.abandon, attempt, failed=failed)
        for answer, thinking in ((text.text, text.thinking), ("", "")):
            written = partial(store, answer=answer, thinking=thinking)
            try:
                return await until_stored(partial(written, usage=usage, estimated=estimated))
            except Exception:  # noqa: BLE001 -- whatever it is, the attempt has to end
                _log.exception("attempt_not_stored", turn_id=str(attempt.key.turn_id))
        estimate = TokenUsage(input_tokens=attempt.estimated_input)
        return await until_stored(partial(store, answer="", usage=estimate, estimated=True))
