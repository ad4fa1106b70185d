"""A real Prometheus scrapes an end-to-end run: no rule and no panel of a dashboard is empty."""

import json
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from temporalio import activity, workflow
from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowHandle
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig
from temporalio.service import RPCError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from tests.fixtures.programs import program
from tests.fixtures.prometheus import (
    Prometheus,
    promtool,
    rules,
    running_prometheus,
)
from tests.running_everturn.client import Client
from tests.running_everturn.model import ModelControl
from tests.running_everturn.process import EverturnDev
from tests.running_everturn.waiting import eventually
from workers.process_metrics import sdk_metrics

DASHBOARDS = Path(__file__).parents[2] / "deploy" / "grafana" / "dashboards"
LARGE = b"x" * 1_900_000
QUEUE = "defects"


def panels() -> Iterator[tuple[str, str]]:
    """Yield a name and an expression for each query of each dashboard."""
    for path in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                expression = target["expr"].replace("$__rate_interval", "1m")
                yield f"{path.stem}: {panel['title']}", expression


def measured(alert: dict[str, Any]) -> str:
    """Return what an alert compares with its limit: 1 where it fires, else 0, or nothing."""
    compared: str = re.sub(r"\s(==|<|>)\s", r" \1 bool ", alert["expr"])
    return compared


@activity.defn(name="take")
async def take(_: bytes) -> None:
    """Take a payload."""


class Defects:
    """What the workflow below does wrong, and when."""

    has_changed = False


@workflow.defn(name="Defective")
class Defective:
    """Sends too much at once, or does in a replay what it did not do before."""

    def __init__(self) -> None:
        self._is_woken = False

    @workflow.signal
    def wake(self) -> None:
        self._is_woken = True

    @workflow.run
    async def run(self, kind: str) -> None:
        if kind == "large":
            for _ in range(4):
                workflow.start_activity("take", LARGE, start_to_close_timeout=timedelta(seconds=30))
        timeout = None if kind or Defects.has_changed else timedelta(hours=1)
        await workflow.wait_condition(lambda: self._is_woken, timeout=timeout)


@asynccontextmanager
async def defective_worker(address: str) -> AsyncIterator[str]:
    """Run a worker that fails in the ways which alerts know; its metrics' address is returned."""
    config: PrometheusConfig = sdk_metrics()
    runtime = Runtime(telemetry=TelemetryConfig(metrics=config))
    client = await TemporalClient.connect(address, runtime=runtime)
    async with Worker(
        client,
        task_queue=QUEUE,
        workflows=[Defective],
        activities=[take],
        workflow_runner=UnsandboxedWorkflowRunner(),
        max_cached_workflows=0,
        disable_payload_error_limit=True,
        workflow_failure_exception_types=[],
    ):
        await client.start_workflow("Defective", "large", id="large", task_queue=QUEUE)
        changed = await client.start_workflow("Defective", "", id="changed", task_queue=QUEUE)
        await _first_task(changed)
        Defects.has_changed = True
        await changed.signal("wake")
        with pytest.raises(RPCError):
            await client.start_workflow(
                "Defective", args=[LARGE, LARGE, LARGE], id="refused", task_queue=QUEUE
            )
        yield config.bind_address
        await changed.terminate()


async def _first_task(handle: WorkflowHandle[Any, Any]) -> None:
    async for event in handle.fetch_history_events(wait_new_event=True):
        if event.HasField("workflow_task_completed_event_attributes"):
            return


@pytest.fixture
def talk(client: Client, admin: Client, model: ModelControl) -> Callable[[], Awaitable[None]]:
    """What fills dashboards."""
    return partial(_talk, client, admin, model)


async def _talk(client: Client, admin: Client, model: ModelControl) -> None:
    """Produce what dashboards show: turns, tools, failures and refusals."""
    for question in ("What is 6 * 7?", "What time is it in Asia/Tokyo?", "Hello"):
        async with client.ask(question) as stream:
            await stream.to_end()
    usage = {"cache_read_input_tokens": 900}
    await model.script(match="cached", text="From the cache.", usage=usage)
    await client.send(await client.new_chat(), "cached")
    failing = {"id": "bad", "name": "calculator", "input": {"expression": "6 *"}}
    await model.script(match="failing tool", tool_calls=[failing])
    await model.script(match="failing tool", text="It failed.")
    await client.send(await client.new_chat(), "failing tool")
    await model.script(match="rejected", status=401)
    async with client.ask("rejected") as stream:
        await stream.to_end()
    chat_id = await client.new_chat()
    await model.script(match="unanswered", status=401)
    sent = await client.request("POST", f"/chats/{chat_id}/messages", {"content": "unanswered"})
    assert sent.status_code == 502, sent.text
    trial = {"input": {"expression": "6 * 7"}}
    assert (await admin.request("POST", "/admin/tools/calculator/test", trial)).status_code == 200
    limited = f"/admin/users/{client.user_id}/budget"
    assert (await admin.request("PUT", limited, {"dailyBudgetUsd": "0"})).status_code == 200
    refused = await client.request("POST", f"/chats/{chat_id}/messages", {"content": "Hello"})
    assert refused.status_code == 402, refused.text


async def test_no_alert_and_no_panel_is_empty_and_a_hung_worker_is_seen(
    talk: Callable[[], Awaitable[None]], everturn: EverturnDev, folder: Path
) -> None:
    program("prometheus/prometheus")
    metrics = {
        name: url.removeprefix("http://").removesuffix("/metrics")
        for name, url in everturn.addresses["metrics"].items()
    }
    workers = [address for name, address in metrics.items() if name != "api"]
    async with defective_worker(everturn.addresses["temporal"]) as defective:
        targets = {"everturn-api": [metrics["api"]], "everturn-worker": [*workers, defective]}
        async with running_prometheus(folder, targets) as prometheus:
            await prometheus.until("up == 1", lambda series: len(series) == 4)
            await talk()
            empty = {f"{name}: {expression}": expression for name, expression in panels()}
            empty |= {alert["alert"]: measured(alert) for alert in rules()}
            await _expect_series(prometheus, empty)
            assert await prometheus.query('ALERTS{alertname="EverturnNoWorkers"}') == []
            await _expect_hung_worker(prometheus, everturn, metrics["worker-tools"])


async def test_promtool_finds_nothing_to_object_to(everturn: EverturnDev) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        for url in everturn.addresses["metrics"].values():
            exposition = (await http.get(url)).content
            assert b"\ntemporal_" in exposition
            assert promtool("check", "metrics", given=exposition) == ""


async def _expect_series(prometheus: Prometheus, empty: dict[str, str]) -> None:
    """Wait until no expression is empty; those that have had series are asked no more."""

    async def look() -> list[str]:
        for name, expression in list(empty.items()):
            if await prometheus.query(expression):
                del empty[name]
        return sorted(empty)

    await eventually(look, lambda names: not names)


async def _expect_hung_worker(prometheus: Prometheus, everturn: EverturnDev, address: str) -> None:
    down = f'ALERTS{{alertname="EverturnProcessDown", instance="{address}"}}'
    process = psutil.Process(everturn.pids()["worker-tools"])
    process.send_signal(signal.SIGSTOP)
    try:
        await prometheus.until(down)
    finally:
        process.send_signal(signal.SIGCONT)
    await prometheus.until(f'up{{instance="{address}"}} == 1')
