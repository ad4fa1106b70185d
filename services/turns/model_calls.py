"""One model call: sent, streamed to clients, stored and paid for, whatever happens to it.

ModelCallError          the provider failed; `exhausted` once retrying is pointless
AttemptOvertakenError   another execution has the step
"""

import asyncio
import re
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final
from uuid import uuid4

import structlog

from schema.events import EventData, NoticeEvent, ToolCallEvent, UsageEvent
from schema.turns import CallModelInput, CallModelOutput, ToolCallReference, ToolCallStatus
from schema.usage import TokenUsage
from services.database import DatabaseUnavailableError
from services.events.deltas import DeltaBuffer
from services.events.writer import EventWriter, OvertakenError
from services.models.failures import ModelCallError, broken_stream
from services.models.gateway import (
    AnswerEnded,
    AnswerStarted,
    ModelGateway,
    ModelRequest,
    TextArrived,
)
from services.prompts.conversation import conversation
from services.prompts.layers import default_layers, system_blocks, tool_params
from services.prompts.window import estimated_output
from services.shielding import shielded, until_stored
from services.tools.executor import ToolExecutor
from services.turns.steps import (
    AttemptOvertakenError,
    Claim,
    NewAttempt,
    RequestedCall,
    Steps,
    StoredAnswer,
    ToolRequest,
)

_log = structlog.get_logger(__name__)

_USABLE_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,100}")

_NO_OBJECT: Final = (
    "The input of this call was not a complete JSON object, so the tool was not run. Call the "
    "tool again with its complete input as one JSON object."
)

# Stop reasons that the user should know: the text may be incomplete.
_NOTICES: Final = {
    "max_tokens": "The answer was cut off at the limit for its length.",
    "refusal": "The model refused to continue.",
    "model_context_window_exceeded": "The conversation fills the model's context window.",
}


def tool_requests(
    blocks: list[dict[str, Any]], unreadable: Collection[str] = ()
) -> list[ToolRequest]:
    """Return the tool calls of an answer; ids that can't be keys are replaced in the blocks."""
    requests: list[ToolRequest] = []
    seen: set[str] = set()
    for block in blocks:
        if block["type"] != "tool_use":
            continue
        problem = _NO_OBJECT if block["id"] in unreadable else None
        if block["id"] in seen or not _USABLE_ID.fullmatch(block["id"]):
            block["id"] = f"toolu_{uuid4().hex}"
        seen.add(block["id"])
        requests.append(ToolRequest(block["id"], block["name"], block["input"], problem))
    return requests


def closing_events(
    step: int, answer: AnswerEnded, requests: Sequence[ToolRequest]
) -> list[EventData]:
    """Return the events after the text and its usage."""
    events: list[EventData] = [
        ToolCallEvent(
            step=step,
            tool_call_id=request.id,
            name=request.name,
            status=ToolCallStatus.REQUESTED,
            input=request.input,
        )
        for request in requests
    ]
    notice = _NOTICES.get(answer.stop_reason)
    if notice is not None:
        events.append(NoticeEvent(code=answer.stop_reason, message=notice))
    return events


def fallback_notice(model: str) -> NoticeEvent:
    """Return the notice that the fallback model answers."""
    return NoticeEvent(
        code="fallback_model", message=f"The model is unavailable; {model} answers instead."
    )


_FIRST_CHECKPOINT_S: Final = 0.1
_CHECKPOINT_S: Final = 1.0


@dataclass(slots=True)
class _Progress:
    """What is known of an attempt while it runs."""

    usage: TokenUsage = field(default_factory=TokenUsage)
    has_started: bool = False


class ModelCalls:
    """Calls the model for a step of a turn."""

    def __init__(
        self,
        *,
        steps: Steps,
        gateway: ModelGateway,
        events: EventWriter,
        tools: ToolExecutor,
        max_output_tokens: int,
        attempts: int,
        delta_interval_s: float,
    ) -> None:
        self._steps = steps
        self._gateway = gateway
        self._events = events
        self._tools = tools
        self._max_output_tokens = max_output_tokens
        self._attempts = attempts
        self._delta_interval_s = delta_interval_s

    async def run(self, call: CallModelInput, claim: Claim) -> CallModelOutput:
        """Call the model for the step, or return what an earlier attempt stored.

        Errors: ModelCallError, AttemptOvertakenError, TurnStoppedError,
        DatabaseUnavailableError.
        Idempotency: a step whose answer is stored is never requested again.
        """
        attempt = await self._steps.begin(call, claim)
        if isinstance(attempt, StoredAnswer):
            return await self._output_of_stored(attempt)
        if call.is_fallback and attempt.key.attempt > 1:
            await self._events.append(call.turn.turn_id, [fallback_notice(call.model)])
        text = DeltaBuffer(
            self._events,
            turn_id=call.turn.turn_id,
            start=attempt.start,
            interval_s=self._delta_interval_s,
        )
        try:
            return await self._ask(attempt, text)
        except OvertakenError as error:
            raise AttemptOvertakenError from error

    async def _ask(self, attempt: NewAttempt, text: DeltaBuffer) -> CallModelOutput:
        progress = _Progress()
        try:
            async with text, self._checkpoints(attempt, text, progress):
                answer = await self._stream(attempt, text, progress)
            await text.flush()
        except asyncio.CancelledError:
            await shielded(self._stop(attempt, text, progress))
            raise
        except ModelCallError as error:
            await shielded(self._fail(attempt, text, progress, error))
            raise
        return await shielded(self._complete(attempt, text, answer))

    async def _stream(
        self, attempt: NewAttempt, text: DeltaBuffer, progress: _Progress
    ) -> AnswerEnded:
        async with aclosing(self._gateway.stream(self._request(attempt))) as events:
            async for event in events:
                match event:
                    case AnswerStarted():
                        progress.usage, progress.has_started = event.usage, True
                    case TextArrived():
                        text.add(event.text)
                    case AnswerEnded():
                        return event
        raise broken_stream()

    def _request(self, attempt: NewAttempt) -> ModelRequest:
        layers = attempt.layers or default_layers(())
        return ModelRequest(
            model=attempt.model,
            system=system_blocks(layers),
            messages=conversation(attempt.material),
            tools=tool_params(layers),
            max_tokens=self._max_output_tokens,
        )

    async def _complete(
        self, attempt: NewAttempt, text: DeltaBuffer, answer: AnswerEnded
    ) -> CallModelOutput:
        requests = tool_requests(answer.blocks, answer.unreadable)
        completed = await until_stored(
            lambda: self._steps.complete(
                attempt,
                answer=text.text,
                blocks=answer.blocks,
                stop_reason=answer.stop_reason,
                tool_requests=requests,
                usage=answer.usage,
            )
        )
        key = attempt.key
        usage = _usage_event(attempt, answer.usage, completed.cost_usd)
        await self._publish(attempt, [usage, *closing_events(key.step, answer, requests)])
        return CallModelOutput(
            stop_reason=answer.stop_reason,
            tool_calls=await self._references(completed.tool_calls),
            attempt=key.attempt,
            usage=answer.usage,
            cost_usd=completed.cost_usd,
        )

    async def _publish(self, attempt: NewAttempt, events: Sequence[EventData]) -> None:
        """Append the events after the text; the stored answer stands even if this is refused."""
        key = attempt.key
        try:
            await self._events.append_attempt(
                key.turn_id, events, step=key.step, attempt=key.attempt
            )
        except OvertakenError:
            _log.info("events_overtaken", turn_id=str(key.turn_id), step=key.step)

    async def _stop(self, attempt: NewAttempt, text: DeltaBuffer, progress: _Progress) -> None:
        """Store the text until the cancellation, and what it cost."""
        usage, _ = self._used(attempt, text, progress, asked=True)
        try:
            await text.flush()
        except OvertakenError:
            return
        stopped = await until_stored(
            lambda: self._steps.abandon(
                attempt, answer=text.text, usage=usage, failed=False, estimated=True
            )
        )
        await self._publish(attempt, [_usage_event(attempt, usage, stopped.cost_usd)])

    async def _fail(
        self, attempt: NewAttempt, text: DeltaBuffer, progress: _Progress, error: ModelCallError
    ) -> None:
        """Store the result of a failed attempt; mark the error if no attempt is left."""
        await text.flush()
        usage, estimated = self._used(attempt, text, progress, asked=error.was_answering)
        failed = await until_stored(
            lambda: self._steps.abandon(
                attempt, answer=text.text, usage=usage, failed=True, estimated=estimated
            )
        )
        await self._publish(attempt, [_usage_event(attempt, usage, failed.cost_usd)])
        error.exhausted = not error.retryable or failed.failures >= self._attempts

    def _used(
        self, attempt: NewAttempt, text: DeltaBuffer, progress: _Progress, *, asked: bool
    ) -> tuple[TokenUsage, bool]:
        """Return what the attempt used as far as known, and whether that is an estimate.

        A provider counts the output at the end only; an answer that was cut off is counted by
        its text. One that never began costs nothing if the provider refused it.
        """
        if progress.has_started:
            written = max(progress.usage.output_tokens, estimated_output(len(text.text)))
            return progress.usage.model_copy(update={"output_tokens": written}), True
        if not asked:
            return TokenUsage(), False
        return TokenUsage(input_tokens=attempt.estimated_input), True

    @asynccontextmanager
    async def _checkpoints(
        self, attempt: NewAttempt, text: DeltaBuffer, progress: _Progress
    ) -> AsyncIterator[None]:
        """Store the answer so far while it is being streamed."""
        keeper = asyncio.create_task(self._keep_checkpoints(attempt, text, progress))
        try:
            yield
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)

    async def _keep_checkpoints(
        self, attempt: NewAttempt, text: DeltaBuffer, progress: _Progress
    ) -> None:
        pause_s = _FIRST_CHECKPOINT_S
        while True:
            await asyncio.sleep(pause_s)
            if not progress.has_started:
                continue
            pause_s = _CHECKPOINT_S
            usage, _ = self._used(attempt, text, progress, asked=True)
            try:
                await self._steps.checkpoint(attempt, answer=text.text, usage=usage)
            except DatabaseUnavailableError:
                _log.warning("checkpoint_failed", turn_id=str(attempt.key.turn_id))

    async def _output_of_stored(self, stored: StoredAnswer) -> CallModelOutput:
        return CallModelOutput(
            stop_reason=stored.stop_reason,
            tool_calls=await self._references(stored.tool_calls),
            attempt=stored.attempt,
            usage=stored.usage,
            cost_usd=stored.cost_usd,
        )

    async def _references(self, calls: Sequence[RequestedCall]) -> tuple[ToolCallReference, ...]:
        """Name only existing tools: a name that the model invents may be anything."""
        return tuple([await self._reference(call) for call in calls])

    async def _reference(self, call: RequestedCall) -> ToolCallReference:
        tool = await self._tools.find(call.name)
        if tool is None:
            return ToolCallReference(id=call.id, name="unknown", instant=True)
        return ToolCallReference(
            id=call.id,
            name=tool.name,
            instant=tool.instant,
            needs_approval=call.needs_approval,
            timeout_s=None if tool.instant else tool.timeout.total_seconds(),
        )


def _usage_event(attempt: NewAttempt, usage: TokenUsage, cost_usd: Decimal) -> UsageEvent:
    return UsageEvent(
        step=attempt.key.step,
        attempt=attempt.key.attempt,
        model=attempt.model,
        **usage.model_dump(),
        cost_usd=cost_usd,
    )
