"""The span of a request: the first of a trace, unless the client has begun one."""

from typing import Final

from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.metrics import method_of, route_of
from workers.tracing import conventions as names_of

_PROPAGATOR: Final = TraceContextTextMapPropagator()
_CARRIED: Final = (b"traceparent", b"tracestate")


class TracedRequests:
    """Traces each request until its response has ended. Plain ASGI: streams pass untouched."""

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on within its span."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        carrier = {
            name.decode(): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in _CARRIED
        }
        span = self._tracer.start_span(
            method_of(scope),
            context=_PROPAGATOR.extract(carrier),
            kind=SpanKind.SERVER,
            attributes={names_of.HTTP_METHOD: method_of(scope)},
        )

        async def send_noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                status = message["status"]
                span.set_attribute(names_of.HTTP_STATUS, status)
                if status >= 500:
                    span.set_attribute(names_of.ERROR_TYPE, str(status))
                    span.set_status(Status(StatusCode.ERROR))
            await send(message)

        # Exceptions may quote what a client sent.
        with use_span(
            span, end_on_exit=True, record_exception=False, set_status_on_exception=False
        ):
            try:
                await self._app(scope, receive, send_noted)
            finally:
                route = route_of(scope)
                span.update_name(f"{method_of(scope)} {route}")
                span.set_attribute(names_of.HTTP_ROUTE, route)
