"""The port of a process's metrics and probes, apart from what the API serves to everybody."""

import asyncio
import errno
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final

from prometheus_client import REGISTRY, CollectorRegistry, make_wsgi_app, start_http_server

from services.settings import Settings
from services.setup_errors import MetricsAddressError, PortTakenError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_BEAT_S: Final = 1.0
_HUNG_AFTER_S: Final = 30.0
"""The longest that a process is known to be busy is a second or two, while it loads a model."""


class ProcessHealth:
    """What `/live` and `/ready` say: whether the event loop runs, and whether work is taken.

    Read from other threads.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.is_ready = False
        self._clock = clock
        self._beat_at = clock()

    @property
    def silent_s(self) -> float:
        """How long ago the event loop ran last; about a second while it runs."""
        return self._clock() - self._beat_at

    @property
    def is_live(self) -> bool:
        """Whether the event loop has run lately."""
        return self.silent_s < _HUNG_AFTER_S

    def beat(self) -> None:
        """Note that the event loop runs."""
        self._beat_at = self._clock()

    @asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """Beat while the block runs."""

        async def beat() -> None:
            while True:
                self.beat()
                await asyncio.sleep(_BEAT_S)

        task = asyncio.create_task(beat())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@contextmanager
def serving_metrics(
    settings: Settings,
    registry: CollectorRegistry = REGISTRY,
    *,
    health: ProcessHealth,
) -> Iterator[None]:
    """Serve metrics and probes in a thread while the block runs; not on port 0.

    Errors: PortTakenError, MetricsAddressError.
    """
    if not settings.metrics_port:
        yield
        return
    try:
        server, thread = start_http_server(
            settings.metrics_port, addr=settings.metrics_host, registry=registry
        )
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTakenError(settings.metrics_port, "EVERTURN_METRICS_PORT") from error
        raise MetricsAddressError(settings.metrics_host, error.strerror or str(error)) from error
    server.set_app(_with_probes(health, make_wsgi_app(registry)))
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _with_probes(health: ProcessHealth, metrics: "WSGIApplication") -> "WSGIApplication":
    """Return an application that answers probes, and leaves all else to `metrics`."""

    def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> list[bytes]:
        match environ["PATH_INFO"]:
            case "/live":
                is_well, otherwise = health.is_live, b"the event loop hangs\n"
            case "/ready":
                is_well, otherwise = health.is_ready and health.is_live, b"not taking work\n"
            case _:
                return list(metrics(environ, start_response))
        status = "200 OK" if is_well else "503 Service Unavailable"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [b"ok\n" if is_well else otherwise]

    return answer
