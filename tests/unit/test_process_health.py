"""What the probes of a process say, on the port of its metrics."""

import asyncio
import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from services.settings import Settings
from services.setup_errors import MetricsAddressError, PortTakenError
from workers.metrics import ProcessHealth, serving_metrics


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def probes(health: ProcessHealth) -> Iterator[httpx.Client]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = Settings(_env_file=None, metrics_port=port)
    with (
        serving_metrics(settings, health=health),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http,
    ):
        yield http


def test_a_process_is_live_before_it_is_ready() -> None:
    health = ProcessHealth()

    with probes(health) as http:
        starting = http.get("/live").status_code, http.get("/ready").status_code
        health.is_ready = True
        started = http.get("/live").status_code, http.get("/ready").status_code
        metrics = http.get("/metrics")

    assert starting == (200, 503)
    assert started == (200, 200)
    assert metrics.status_code == 200
    assert "process_start_time_seconds" in metrics.text


def test_a_process_whose_event_loop_hangs_is_neither_live_nor_ready() -> None:
    clock = Clock()
    health = ProcessHealth(clock=clock)
    health.is_ready = True

    with probes(health) as http:
        clock.now += 60
        hung = http.get("/live"), http.get("/ready")
        health.beat()
        again = http.get("/live")

    assert [response.status_code for response in hung] == [503, 503]
    assert hung[0].text == "the event loop hangs\n"
    assert again.status_code == 200


async def test_an_event_loop_beats_while_it_runs() -> None:
    clock = Clock()
    health = ProcessHealth(clock=clock)
    clock.now += 60

    async with health.beating():
        await asyncio.sleep(0)

        assert health.is_live


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = Settings(_env_file=None, metrics_port=port)
        with pytest.raises(PortTakenError, match=f"{port}.*EVERTURN_METRICS_PORT"):
            serving_metrics(settings, health=ProcessHealth()).__enter__()


def test_an_address_of_another_machine_is_named() -> None:
    settings = Settings(_env_file=None, metrics_host="192.0.2.1", metrics_port=9464)

    with pytest.raises(MetricsAddressError, match=r"192\.0\.2\.1.*EVERTURN_METRICS_HOST") as raised:
        serving_metrics(settings, health=ProcessHealth()).__enter__()

    assert isinstance(raised.value.__cause__, OSError)
    assert raised.value.__cause__.errno == errno.EADDRNOTAVAIL
