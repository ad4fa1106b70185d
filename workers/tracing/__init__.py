"""Traces by OpenTelemetry: five spans of our own, off unless a collector is set.

request, turn, prepare, model call, tool. The context goes from a request to the activities of its
turn in a Temporal header. No span holds what people, models or tools wrote
(docs/decisions/0051-five-spans.md).
"""

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from starlette.types import ASGIApp
from temporalio.client import Interceptor

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def _unchanged(app: ASGIApp) -> ASGIApp:
    return app


@dataclass(frozen=True, slots=True)
class Traces:
    """What traces a process: nothing, by default."""

    interceptors: Sequence[Interceptor] = ()
    around: Callable[[ASGIApp], ASGIApp] = _unchanged


def is_tracing() -> bool:
    """Whether the environment names a collector, and doesn't switch traces off."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if os.environ.get("OTEL_TRACES_EXPORTER", "otlp").lower() == "none":
        return False
    return any(os.environ.get(name) for name in _ENDPOINTS)


@asynccontextmanager
async def tracing(service: str) -> AsyncIterator[Traces]:
    """Trace while the block runs, if a collector is set; `service` is the default name."""
    if not is_tracing():
        yield Traces()
        return
    # They load OpenTelemetry's SDK, which takes half a second and some megabytes.
    from workers.tracing.requests import TracedRequests  # noqa: PLC0415
    from workers.tracing.spans import open_tracing  # noqa: PLC0415
    from workers.tracing.temporal import TraceInterceptor  # noqa: PLC0415

    async with open_tracing(service) as opened:
        yield Traces((TraceInterceptor(opened),), partial(TracedRequests, tracer=opened.tracer))
