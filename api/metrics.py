"""Metrics of the API: requests, connections, streams, refusals. Dashboards depend on the names."""

import time
from collections.abc import Callable, Iterable
from typing import Final

from fastapi import FastAPI, Request
from fastapi.routing import iter_route_contexts
from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
_UNMATCHED: Final = "unmatched"
# Each bucket is a series for every route, method and class of status.
_BUCKETS: Final = (0.01, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0)


class ApiMetrics:
    """The metrics of one application, in a separate registry, and what its process counts."""

    def __init__(self, *, is_limiter_degraded: Callable[[], bool] = bool) -> None:
        # The creation times would be one more series for each.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the package has no types for it
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(_ProcessCounts())
        labels = ("method", "route", "status")
        self.requests = Counter(
            "everturn_http_requests",
            "Requests by route, method and class of status.",
            labels,
            registry=self.registry,
        )
        self.durations = Histogram(
            "everturn_http_request_duration_seconds",
            "From a request to the head of its response; for a stream, until it opens.",
            labels,
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "everturn_http_requests_in_flight",
            "Requests in flight, open streams included.",
            registry=self.registry,
        )
        self.open_streams = Gauge(
            "everturn_event_streams_open",
            "Open event streams.",
            registry=self.registry,
        )
        self.open_connections = Gauge(
            "everturn_http_connections_open",
            "Open connections, idle ones included.",
            registry=self.registry,
        )
        self.refused_connections = Counter(
            "everturn_http_connections_refused",
            "Connections closed for a bound or an invalid request.",
            ("reason",),
            registry=self.registry,
        )
        self.refusals = Counter(
            "everturn_rate_limit_refusals",
            "Requests refused by a rate limit.",
            ("group",),
            registry=self.registry,
        )
        self.limiter_degraded = Gauge(
            "everturn_rate_limiter_degraded",
            "1 while Redis is unavailable and this process counts on its own.",
            registry=self.registry,
        )
        self.limiter_degraded.set_function(is_limiter_degraded)


class _ProcessCounts(Collector):
    """What the services, and a worker in this process, count for all applications together."""

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the names are those of modules that may be imported later."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return the counts, without what the default registry knows of Python."""
        return (each for each in REGISTRY.collect() if each.name.startswith("everturn_"))


def metrics_of(request: Request) -> ApiMetrics:
    """Return the metrics of the application that a request came to."""
    metrics: ApiMetrics = request.app.state.metrics
    return metrics


class MetricsMiddleware:
    """Measures each request. Plain ASGI: streams pass through it untouched."""

    def __init__(self, app: ASGIApp, metrics: ApiMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and record its response."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        opened = status = 0

        async def send_measured(message: Message) -> None:
            nonlocal opened, status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._note(scope, status, time.perf_counter() - begun)
                if _is_event_stream(message):
                    opened = 1
                    self._metrics.open_streams.inc()
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, send_measured)
        except Exception:
            # The response is built further out.
            if not status:
                self._note(scope, 500, time.perf_counter() - begun)
            raise
        finally:
            self._metrics.in_flight.dec()
            self._metrics.open_streams.dec(opened)

    def _note(self, scope: Scope, status: int, duration_s: float) -> None:
        labels = (method_of(scope), route_of(scope), f"{status // 100}xx")
        self._metrics.requests.labels(*labels).inc()
        self._metrics.durations.labels(*labels).observe(duration_s)


def method_of(scope: Scope) -> str:
    """Return a request's method; clients can invent some, which as labels would be unbounded."""
    return scope["method"] if scope["method"] in _METHODS else "other"


def route_of(scope: Scope) -> str:
    """Return the template of a request's path with all its prefixes, which its route lacks."""
    route = scope.get("route")
    if route is None:
        return _UNMATCHED
    state = scope["app"].state
    templates: dict[int, str] | None = getattr(state, "route_templates", None)
    if templates is None:
        templates = state.route_templates = _templates_of(scope["app"])
    return templates.get(id(route), _UNMATCHED)


def _templates_of(app: FastAPI) -> dict[int, str]:
    return {
        id(context.original_route): context.path_format or _UNMATCHED
        for context in iter_route_contexts(app.routes)
    }


def _is_event_stream(message: Message) -> bool:
    content_type = Headers(raw=message["headers"]).get("content-type", "")
    return content_type.startswith("text/event-stream")
