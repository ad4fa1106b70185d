"""The port of a process's Prometheus metrics, apart from what the API serves to everybody."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import REGISTRY, CollectorRegistry, start_http_server

from services.settings import Settings
from services.setup_errors import PortTakenError


@contextmanager
def serving_metrics(settings: Settings, registry: CollectorRegistry = REGISTRY) -> Iterator[None]:
    """Serve metrics in a thread while the block runs, unless their port is 0.

    Errors: PortTakenError; OSError for an address that is not this machine's.
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
        raise
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
