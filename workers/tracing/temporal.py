"""Takes the context of a trace through Temporal, and makes the spans of a turn's activities."""

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

import structlog
import temporalio.client
import temporalio.worker
from opentelemetry.trace import SpanContext, SpanKind, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue
from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.exceptions import ApplicationError

from activities import names
from schema.turns import (
    CallModelInput,
    CallModelOutput,
    FinishTurnInput,
    FinishTurnOutput,
    RunToolInput,
    RunToolOutput,
    ToolCallStatus,
    TurnReference,
    TurnStatus,
)
from schema.usage import TokenUsage
from workers.tracing import conventions as names_of
from workers.tracing.spans import Attributes, Tracing
from workflows.trace_header import TRACE_HEADER, TraceHeader

_log = structlog.get_logger(__name__)

_PROPAGATOR: Final = TraceContextTextMapPropagator()
_AGENT: Final = "everturn"


class TraceInterceptor(temporalio.client.Interceptor, temporalio.worker.Interceptor):
    """Sends contexts with the workflows that a client starts; traces the activities of a worker.

    A worker takes it from its client.
    """

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    def intercept_client(
        self,
        next: temporalio.client.OutboundInterceptor,  # noqa: A002 -- the SDK's name
    ) -> temporalio.client.OutboundInterceptor:
        """Wrap the client."""
        return _Starting(next)

    def intercept_activity(
        self,
        next: temporalio.worker.ActivityInboundInterceptor,  # noqa: A002 -- the SDK's name
    ) -> temporalio.worker.ActivityInboundInterceptor:
        """Wrap the activity."""
        return _Tracing(next, self._tracing)

    def workflow_interceptor_class(
        self,
        input: temporalio.worker.WorkflowInterceptorClassInput,  # noqa: A002, ARG002 -- the SDK's
    ) -> type[temporalio.worker.WorkflowInboundInterceptor]:
        """Return what copies the header in workflows."""
        return TraceHeader


class _Starting(temporalio.client.OutboundInterceptor):
    async def start_workflow(
        self,
        input: temporalio.client.StartWorkflowInput,  # noqa: A002 -- the SDK's name
    ) -> temporalio.client.WorkflowHandle[Any, Any]:
        """Start it with the context of the request at hand, if there is one."""
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier)
        if TRACE_HEADER in carrier:
            payload = Payload(
                metadata={"encoding": b"json/plain"}, data=f'"{carrier[TRACE_HEADER]}"'.encode()
            )
            input.headers = {**input.headers, TRACE_HEADER: payload}
        return await super().start_workflow(input)


class _Part(NamedTuple):
    """The span of an activity, as far as it is known before the activity runs."""

    turn: TurnReference
    name: str
    attributes: dict[str, AttributeValue]
    kind: SpanKind = SpanKind.INTERNAL


class _Tracing(temporalio.worker.ActivityInboundInterceptor):
    def __init__(
        self,
        next: temporalio.worker.ActivityInboundInterceptor,  # noqa: A002 -- the SDK's name
        tracing: Tracing,
    ) -> None:
        super().__init__(next)
        self._tracing = tracing

    async def execute_activity(self, input: temporalio.worker.ExecuteActivityInput) -> Any:  # noqa: A002, ANN401 -- the SDK's signature
        """Run the activity, and send its span; what goes wrong with the span is only logged."""
        begun_ns, output, error = time.time_ns(), None, ""
        try:
            output = await super().execute_activity(input)
        except Exception as raised:
            error = _type_of(raised)
            raise
        finally:
            try:
                self._end(input, output, begun_ns=begun_ns, error=error)
            except Exception as problem:  # noqa: BLE001 -- no trace is worth a turn
                _log.warning("span_lost", exc_info=problem)
        return output

    def _end(
        self,
        input: temporalio.worker.ExecuteActivityInput,  # noqa: A002 -- the SDK's name
        output: object,
        *,
        begun_ns: int,
        error: str,
    ) -> None:
        argument = next(iter(input.args), None)
        if isinstance(argument, FinishTurnInput):
            if isinstance(output, FinishTurnOutput):
                self._end_turn(input.headers, argument.turn, output)
            return
        part = _part_of(activity.info().activity_type, argument)
        if part is None:
            return
        part.attributes.update(_attributes_of(output))
        self._end_part(input.headers, part, begun_ns=begun_ns, error=error or _failure_in(output))
        # The last model call of a turn may end it.
        finished = getattr(output, "finished", None)
        if finished is not None:
            self._end_turn(input.headers, part.turn, finished)

    def _end_part(
        self, headers: Mapping[str, Payload], part: _Part, *, begun_ns: int, error: str
    ) -> None:
        trace = self._tracing.of_turn(part.turn.turn_id, _carried(headers))
        self._tracing.end_part(
            trace,
            part.name,
            {**part.attributes, **_error(error)},
            kind=part.kind,
            begun_ns=begun_ns,
            failed=bool(error),
        )

    def _end_turn(
        self, headers: Mapping[str, Payload], turn: TurnReference, output: FinishTurnOutput
    ) -> None:
        trace = self._tracing.of_turn(turn.turn_id, _carried(headers))
        outcome, error = output.outcome, ""
        if outcome.status is TurnStatus.FAILED:
            error = outcome.error_code or TurnStatus.FAILED
        attributes = {
            names_of.OPERATION: names_of.INVOKE_AGENT,
            names_of.AGENT: _AGENT,
            names_of.CONVERSATION: str(turn.chat_id),
            **_turn(turn),
            names_of.REQUEST_MODEL: turn.model,
            names_of.STATUS: outcome.status.value,
            names_of.STEPS: outcome.steps,
            names_of.COST_USD: float(outcome.cost_usd),
            **_usage(outcome.usage),
            **_error(error),
        }
        self._tracing.end_turn(
            trace,
            f"{names_of.INVOKE_AGENT} {_AGENT}",
            attributes,
            begun_ns=_created_ns(turn),
            failed=bool(error),
        )


def _carried(headers: Mapping[str, Payload]) -> SpanContext | None:
    """Return the context that came with the workflow's start."""
    payload = headers.get(TRACE_HEADER)
    return None if payload is None else _read(payload.data)


@lru_cache(1024)
def _read(header: bytes) -> SpanContext | None:
    """Return the context in a header; each activity of a turn brings the same."""
    carrier = {TRACE_HEADER: header.decode(errors="replace").strip('"')}
    context = get_current_span(_PROPAGATOR.extract(carrier)).get_span_context()
    return context if context.is_valid else None


def _created_ns(turn: TurnReference) -> int:
    """Return when the turn's message was accepted, by its id. Source: RFC 9562, section 5.7."""
    return (turn.turn_id.int >> 80) * 1_000_000


def _part_of(kind: str, argument: object) -> _Part | None:
    match kind, argument:
        case names.PREPARE_TURN, TurnReference():
            return _Part(argument, "prepare", dict(_turn(argument)))
        case ((names.BEGIN_TURN | names.CALL_MODEL), CallModelInput()):
            attributes = {
                names_of.OPERATION: names_of.CHAT,
                names_of.PROVIDER: names_of.ANTHROPIC,
                names_of.REQUEST_MODEL: argument.model,
                names_of.STEP: argument.step,
                **_turn(argument.turn),
            }
            name = f"{names_of.CHAT} {argument.model}"
            return _Part(argument.turn, name, attributes, SpanKind.CLIENT)
        case names.RUN_TOOL, RunToolInput():
            attributes = {
                names_of.OPERATION: names_of.EXECUTE_TOOL,
                names_of.TOOL_NAME: argument.name,
                names_of.TOOL_CALL: argument.tool_call_id,
                names_of.STEP: argument.step,
                **_turn(argument.turn),
            }
            return _Part(argument.turn, f"{names_of.EXECUTE_TOOL} {argument.name}", attributes)
        case _:
            return None


def _attributes_of(output: object) -> Attributes:
    """Return what is known once the activity has run."""
    match output:
        case CallModelOutput():
            return {
                names_of.FINISH_REASONS: (output.stop_reason,),
                names_of.ATTEMPT: output.attempt,
                names_of.COST_USD: float(output.cost_usd),
                **_usage(output.usage),
            }
        case RunToolOutput():
            return {names_of.STATUS: output.status.value}
        case _:
            return {}


def _failure_in(output: object) -> str:
    has_failed = isinstance(output, RunToolOutput) and output.status is ToolCallStatus.FAILED
    return ToolCallStatus.FAILED.value if has_failed else ""


def _type_of(error: Exception) -> str:
    kind = error.type if isinstance(error, ApplicationError) else None
    return kind or type(error).__name__


def _turn(turn: TurnReference) -> Attributes:
    return {names_of.TURN: str(turn.turn_id)}


def _usage(usage: TokenUsage) -> Attributes:
    """Return tokens; by the conventions, cached ones are a part of the input."""
    cached = usage.cache_read_tokens + usage.cache_write_tokens
    return {
        names_of.INPUT_TOKENS: usage.input_tokens + cached,
        names_of.OUTPUT_TOKENS: usage.output_tokens,
        names_of.CACHE_READ_TOKENS: usage.cache_read_tokens,
        names_of.CACHE_WRITE_TOKENS: usage.cache_write_tokens,
    }


def _error(error: str) -> Attributes:
    return {names_of.ERROR_TYPE: error} if error else {}
