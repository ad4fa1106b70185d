"""Measures tool calls in flight: how they slow turns without tools, and the memory they hold.

The tool is a webhook in this process that answers on command.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import psutil
from starlette.responses import JSONResponse, Response

from api.routing import API_PREFIX
from tests.fakes.webhook_engine import SECRET, ReceivedCall, WebhookEngine, webhook_engine
from tests.load.client import Request, Sample, Spread, spread
from tests.load.model import Play
from tests.load.report import Line, Report
from tests.load.stacks import ADMIN
from tests.load.stage import Stage
from tests.running_everturn.waiting import eventually

_TOOL: Final = "held_webhook"
_PLAIN: Final = Play(first_s=0.05, tokens=10, between_s=0.01)
_CALLING: Final = Play(first_s=0.05, tokens=2, tool=_TOOL)
_CONCURRENCY: Final = 4
_WORKERS: Final = ("worker-turns", "worker-tools")
_WITHIN_S: Final = 60.0
_MOST_SLOWED: Final = 1.5
_MOST_GROWN: Final = 105


@dataclass(frozen=True, slots=True)
class ToolEffort:
    """How many calls are in flight, and how many plain turns run beside them, in each round.

    `watch_s` is how long CPU is counted while nothing goes on but the calls.
    """

    rounds: int
    in_flight: int
    plain: int
    watch_s: float


async def measure_tools(stage: Stage, report: Report, effort: ToolEffort) -> None:
    """Measure plain turns without and with calls in flight, in turns, and the workers' memory."""
    async with _held_webhook(stage) as (engine, gate):
        await _plain(stage, effort.plain)
        resident = [_resident_kb(stage)]
        alone: list[Sample] = []
        beside: list[Sample] = []
        busy = ""
        for _ in range(effort.rounds):
            alone += await _plain(stage, effort.plain)
            gate.clear()
            await _fly(stage, engine, effort.in_flight)
            resident.append(_resident_kb(stage))
            beside += await _plain(stage, effort.plain)
            busy = await _busy(stage, effort.watch_s)
            gate.set()
            await stage.ground.client.wait()
            await stage.settle()
            resident.append(_resident_kb(stage))
    _report_times(report, _first(alone), _first(beside), effort.in_flight)
    _report_memory(report, resident, effort.in_flight)
    report.note(f"CPU of the processes with {effort.in_flight} tool calls in flight: {busy}.")


async def _fly(stage: Stage, engine: WebhookEngine, count: int) -> None:
    """Begin turns whose tool does not answer, and return when all calls have arrived."""
    arrived = len(engine.calls[_TOOL]) + count
    chats = await stage.make_chats(count)
    await stage.ground.client.open([stage.message(chat, _CALLING) for chat in chats])

    async def count_calls() -> int:
        return len(engine.calls[_TOOL])

    await eventually(count_calls, lambda seen: seen >= arrived, within_s=_WITHIN_S)


async def _busy(stage: Stage, watch_s: float) -> str:
    """Return what share of a core each process takes while nothing but the calls goes on."""
    before = stage.stack.cpu()
    await asyncio.sleep(watch_s)
    used = stage.stack.cpu().since(before)
    return ", ".join(f"{name} {ms / watch_s / 10:.1f} %" for name, ms in used.by_name.items())


def _report_times(report: Report, alone: Spread, beside: Spread, count: int) -> None:
    for percentile, without, among in (
        ("p50", alone.p50, beside.p50),
        ("p95", alone.p95, beside.p95),
    ):
        name = f"first token of a plain turn, {_CONCURRENCY} at a time, {percentile}"
        report.add(
            Line(name=name, value=without),
            Line(name=f"{name}, {count} tool calls in flight", value=among),
            Line(
                name=f"slowed by {count} tool calls in flight, {percentile}",
                value=among / without,
                unit="times",
                target=_MOST_SLOWED,
            ),
        )


def _report_memory(report: Report, resident_kb: Sequence[float], count: int) -> None:
    before, *flights = resident_kb
    during, after = flights[::2], flights[1::2]
    report.add(
        Line(
            name=f"memory of each of {count} tool calls in flight",
            value=(during[0] - before) / count,
            unit="kB",
        ),
        Line(
            # The first round fills caches and grows the heap to its working size.
            name=f"memory of the workers after {len(after)} rounds, for that after 2",
            value=100 * after[-1] / after[1],
            unit="%",
            target=_MOST_GROWN,
        ),
    )
    listed = ", ".join(
        f"{while_kb / 1000:.1f} and {after_kb / 1000:.1f}"
        for while_kb, after_kb in zip(during, after, strict=True)
    )
    report.note(
        f"Memory of the workers: {before / 1000:.1f} MB; while {count} tool calls were in flight "
        f"and after them, in rounds: {listed}."
    )


async def _plain(stage: Stage, count: int) -> Sequence[Sample]:
    """Run plain turns; what they leave to do is not waited for, since calls in flight go on."""
    requests = [stage.message(chat, _PLAIN) for chat in await stage.make_chats(count)]
    return await stage.ground.client.run(requests, concurrency=_CONCURRENCY)


def _first(samples: Sequence[Sample]) -> Spread:
    return spread(sample.first_ms for sample in samples)


def _resident_kb(stage: Stage) -> float:
    """Return the memory of both workers."""
    pids = [stage.stack.pids()[name] for name in _WORKERS]
    return sum(psutil.Process(pid).memory_info().rss for pid in pids) / 1000


@asynccontextmanager
async def _held_webhook(stage: Stage) -> AsyncIterator[tuple[WebhookEngine, asyncio.Event]]:
    """Register the tool, wait until models are offered it, and yield what lets it answer."""
    gate = asyncio.Event()
    gate.set()

    async def answer(_: ReceivedCall) -> Response:
        await gate.wait()
        return JSONResponse("done")

    async with webhook_engine() as engine:
        engine.script(_TOOL, answer)
        await _register(stage, engine)
        async with asyncio.timeout(_WITHIN_S):
            while not engine.calls[_TOOL]:
                await stage.batch(_CALLING, 1, concurrency=1)
        yield engine, gate


async def _register(stage: Stage, engine: WebhookEngine) -> None:
    login = Request(stage.api_port, f"{API_PREFIX}/auth/login", "POST", body=ADMIN)
    (admin,) = await stage.ground.client.run([login], concurrency=1)
    tool = {
        "name": _TOOL,
        "description": "Answers on command.",
        "url": engine.url(_TOOL),
        "inputSchema": {"type": "object"},
        "secret": SECRET,
        "timeoutS": 600,
    }
    path, token = f"{API_PREFIX}/admin/workflow-tools", admin.data["accessToken"]
    request = Request(stage.api_port, path, "POST", token, tool)
    await stage.ground.client.run([request], concurrency=1)
