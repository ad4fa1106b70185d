"""Makes spans and sends them to a collector, from a thread of the SDK's with a bounded queue."""

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, NamedTuple, TypeAlias

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

from schema.ids import TurnId

Attributes: TypeAlias = Mapping[str, AttributeValue]

_log = structlog.get_logger(__name__)

_SHUTDOWN_S: Final = 2.0
"""How long the last spans may take at the end; a collector that is unavailable delays no deploy."""
_SPAN_ID_BITS: Final = (1 << 64) - 1


class TurnTrace(NamedTuple):
    """Where the spans of a turn belong: the span of its request, if known, and its own."""

    request: SpanContext | None
    turn: SpanContext


class _Ids(RandomIdGenerator):
    """Random ids, but for the span that is made next."""

    next_turn: SpanContext | None = None

    def generate_span_id(self) -> int:
        """Return the id of the turn whose span is made, or a random one."""
        turn, self.next_turn = self.next_turn, None
        return super().generate_span_id() if turn is None else turn.span_id

    def generate_trace_id(self) -> int:
        """Return that of the turn whose span is made, or a random one; asked before the other."""
        turn = self.next_turn
        return super().generate_trace_id() if turn is None else turn.trace_id


class Tracing:
    """Makes the spans of one process."""

    def __init__(self, provider: TracerProvider, ids: _Ids) -> None:
        self._sampler = provider.sampler
        self._ids = ids
        self.tracer = provider.get_tracer("everturn")

    def of_turn(self, turn_id: TurnId, request: SpanContext | None) -> TurnTrace:
        """Return the trace of a turn: its request's, or one of its own if no request started it.

        The ids are made of the turn's, so that each process knows them, whichever ends the turn.
        """
        if request is None:
            trace_id = turn_id.int
            sampled = self._sampler.should_sample(None, trace_id, "turn").decision
            flags = TraceFlags(sampled is Decision.RECORD_AND_SAMPLE)
        else:
            trace_id, flags = request.trace_id, request.trace_flags
        span_id = turn_id.int & _SPAN_ID_BITS
        return TurnTrace(request, SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags))

    def end_turn(
        self, trace: TurnTrace, name: str, attributes: Attributes, *, begun_ns: int, failed: bool
    ) -> None:
        """Send the span of a turn that ends now."""
        self._ids.next_turn = trace.turn
        self._end(
            name,
            _context(trace.request),
            attributes,
            kind=SpanKind.INTERNAL,
            begun_ns=begun_ns,
            failed=failed,
        )
        self._ids.next_turn = None

    def end_part(
        self,
        trace: TurnTrace,
        name: str,
        attributes: Attributes,
        *,
        kind: SpanKind,
        begun_ns: int,
        failed: bool,
    ) -> None:
        """Send the span of a part of a turn that ends now."""
        self._end(
            name, _context(trace.turn), attributes, kind=kind, begun_ns=begun_ns, failed=failed
        )

    def _end(
        self,
        name: str,
        context: Context,
        attributes: Attributes,
        *,
        kind: SpanKind,
        begun_ns: int,
        failed: bool,
    ) -> None:
        span = self.tracer.start_span(
            name, context=context, kind=kind, attributes=attributes, start_time=begun_ns
        )
        if failed:
            span.set_status(Status(StatusCode.ERROR))
        span.end()


def _context(parent: SpanContext | None) -> Context:
    empty = Context()
    return empty if parent is None else set_span_in_context(NonRecordingSpan(parent), empty)


class _Exporter(SpanExporter):
    """Says once that the collector doesn't take spans, and once that it does again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._is_failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans; called by the thread of the processor."""
        result = self._exporter.export(spans)
        has_failed = result is not SpanExportResult.SUCCESS
        if has_failed is not self._is_failing:
            self._is_failing = has_failed
            if has_failed:
                _log.warning(
                    "traces_dropped",
                    hint="Is the collector at OTEL_EXPORTER_OTLP_ENDPOINT running?",
                )
            else:
                _log.info("traces_sent_again")
        return result

    def shutdown(self) -> None:
        """Stop trying."""
        self._exporter.shutdown()


@asynccontextmanager
async def open_tracing(service: str) -> AsyncIterator[Tracing]:
    """Trace while the block runs; OTEL_* variables say where to, how many, and under which name."""
    name = os.environ.get("OTEL_SERVICE_NAME") or service
    ids = _Ids()
    provider = TracerProvider(
        resource=Resource.create({SERVICE_NAME: name}), id_generator=ids, shutdown_on_exit=False
    )
    # It has a line for each attempt and each span that is dropped.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    provider.add_span_processor(BatchSpanProcessor(_Exporter(OTLPSpanExporter())))
    try:
        yield Tracing(provider, ids)
    finally:
        await _shut_down(provider)


async def _shut_down(provider: TracerProvider) -> None:
    """Send what is left, but wait for no collector that does not answer."""
    loop, is_down = asyncio.get_running_loop(), asyncio.Event()

    def shut_down() -> None:
        provider.shutdown()
        loop.call_soon_threadsafe(is_down.set)

    # A thread that does not keep the process from ending.
    threading.Thread(target=shut_down, daemon=True).start()
    try:
        async with asyncio.timeout(_SHUTDOWN_S):
            await is_down.wait()
    except TimeoutError:
        return
