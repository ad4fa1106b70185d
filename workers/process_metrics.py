"""What a process measures of itself: the lag of its event loop, and the Temporal SDK's metrics.

The SDK adds them up in its native core, and can only serve them itself: it does so on a port of
loopback, from which a scrape of ours fetches them. A buffer that Python drains would cost every
update a crossing, and lose updates of a process that is stuck.
"""

import http.client
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Gauge, disable_created_metrics
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from temporalio.runtime import PrometheusConfig

from services.settings import Settings
from workers.metrics import ProcessHealth

_log = structlog.get_logger(__name__)

_LOOPBACK: Final = "127.0.0.1"
_TIMEOUT_S: Final = 2.0
# Chats wait: the SDK's own buckets are too coarse where the alerts' limits are.
_WAITS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
_FINE: Final = (
    "temporal_activity_schedule_to_start_latency",
    "temporal_workflow_task_schedule_to_start_latency",
    "temporal_workflow_task_execution_latency",
    "temporal_request_latency",
)


@cache
def sdk_metrics() -> PrometheusConfig:
    """Return how the SDK serves its metrics, by the names that Prometheus recommends."""
    with socket.create_server((_LOOPBACK, 0)) as free:
        port: int = free.getsockname()[1]
    return PrometheusConfig(
        bind_address=f"{_LOOPBACK}:{port}",
        counters_total_suffix=True,
        unit_suffix=True,
        durations_as_seconds=True,
        histogram_bucket_overrides=dict.fromkeys(_FINE, _WAITS),
    )


@contextmanager
def process_metrics(
    settings: Settings, health: ProcessHealth, registry: CollectorRegistry = REGISTRY
) -> Iterator[None]:
    """Add both to a registry while the block runs."""
    if not settings.metrics_port:
        yield
        return
    # The creation times would be one more series for each.
    disable_created_metrics()  # type: ignore[no-untyped-call]  # the package has no types for it
    lag = Gauge(
        "everturn_event_loop_lag_seconds",
        "For how long the event loop has been behind.",
        registry=registry,
    )
    # Read by the thread that serves metrics: a loop that is stuck shows for how long. One that
    # runs beats once a second.
    lag.set_function(lambda: max(health.silent_s - 1.0, 0.0))
    relay = _Relay()
    registry.register(relay)
    try:
        yield
    finally:
        registry.unregister(relay)
        registry.unregister(lag)


class _Relay(Collector):
    def describe(self) -> Iterable[Metric]:
        """Return nothing: their names are known once something was counted."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return what the SDK has counted; nothing before it is connected."""
        connection = http.client.HTTPConnection(sdk_metrics().bind_address, timeout=_TIMEOUT_S)
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        except (OSError, http.client.HTTPException) as error:
            _log.debug("sdk_metrics_unavailable", error=type(error).__name__)
            return ()
        finally:
            connection.close()
        return text_string_to_metric_families(text)
