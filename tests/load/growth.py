"""Measures what grows: cost with workers and with stored turns; start and memory of processes."""

import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Final

import psutil

from tests.load.client import Sample
from tests.load.comparison import Comparison, Effort, Interval
from tests.load.model import Play
from tests.load.population import Size, populate
from tests.load.report import BASE, OURS, Figure, Line, Report
from tests.load.stacks import Checkout, open_stack
from tests.load.stage import Batch, Ground, Stage
from tests.load.turns import compare_rates, rate_figures

_WORKERS: Final = (1, 2, 4)
_WARM_UP: Final = Play(first_s=0.05, tokens=10, between_s=0.01)
_WARM_UP_TURNS: Final = 64
_MOST_MB: Final = 150
_READY_S: Final = 6


async def measure_workers(stage: Stage, report: Report, *, count: int, effort: Effort) -> None:
    """Measure turns per second with 1, 2 and 4 workers for turns."""
    running = 1
    async with AsyncExitStack() as further:
        for workers in _WORKERS:
            while running < workers:
                await further.enter_async_context(stage.stack.further("worker", "--queue", "turns"))
                running += 1
            await measure_point(
                stage, report, what="workers", number=workers, count=count, effort=effort
            )


async def measure_stored_turns(
    stage: Stage, report: Report, *, most: int, count: int, effort: Effort
) -> None:
    """Measure turns per second beside 10^3, 10^4 ... stored turns; the database grows between."""
    stored = 0
    for number, turns in enumerate(10**power for power in range(3, 9)):
        if turns > most:
            return
        sys.stderr.write(f"growth: filling up to {turns} stored turns\n")
        await populate(stage.stack.superuser, Size.of_turns(turns - stored), number=number)
        stored = turns
        await measure_point(
            stage, report, what="stored turns", number=turns, count=count, effort=effort
        )


async def measure_point(
    stage: Stage, report: Report, *, what: str, number: int, count: int, effort: Effort
) -> None:
    """Measure the rate and the CPU of turns, 32 at a time, as things are now."""
    rounds = await compare_rates([stage], count, effort)
    rate, _, cpu = rate_figures(f"at 32, {what}: {number:,}")
    for figure in (rate, cpu):
        # How these change is the point; how much it may be is measured elsewhere.
        line = _without_target(figure).line(rounds, shape=stage.shape)
        report.add(line)
        interval = line.interval or Interval(line.value, line.value, line.value)
        report.plot(
            what,
            number=number,
            unit=line.unit,
            value=line.value,
            low=interval.low,
            high=interval.high,
            floor=line.floor,
        )


def _without_target(figure: Figure) -> Figure:
    return Figure(name=figure.name, of=figure.of, unit=figure.unit, least=figure.least)


async def measure_start(
    folder: Path, ground: Ground, report: Report, *, checkouts: Sequence[Checkout], effort: Effort
) -> None:
    """Measure how long `everturn dev` takes to be ready, with fresh data and with old."""
    for kind, is_ephemeral in (("--ephemeral", True), ("with data of before", False)):
        sides = {
            side: partial(_start, folder / side, ground, checkout, is_ephemeral=is_ephemeral)
            for side, checkout in zip((OURS, BASE), checkouts, strict=False)
        }
        if not is_ephemeral:
            for prepare in sides.values():
                await prepare()
        seconds = Figure(
            name=f"`everturn dev` to ready, {kind}",
            of=lambda batches: sum(b.samples[0].whole_ms for b in batches) / len(batches) / 1000,
            unit="s",
            target=_READY_S,
        )
        cpu = Figure(
            name=f"CPU until it is ready, {kind}",
            of=lambda batches: sum(batch.cpu.total for batch in batches) / len(batches) / 1000,
            unit="s",
        )
        rounds = await Comparison(sides, effort).run(seconds.is_narrow)
        report.compare(rounds, seconds, cpu)


async def _start(folder: Path, ground: Ground, checkout: Checkout, *, is_ephemeral: bool) -> Batch:
    begun = time.perf_counter()
    async with open_stack(
        folder, checkout=checkout, ephemeral=is_ephemeral, settings=ground.settings
    ) as stack:
        ended = time.perf_counter()
        used = stack.cpu()
    return Batch([Sample(200, begun, None, ended, "", completed=True)], used, used)


async def measure_memory(stages: Sequence[Stage], report: Report) -> None:
    """Measure an API and a worker as they are in production, each started by its own command."""
    resident = [await _resident_mb(stage) for stage in stages]
    for process, ours in resident[0].items():
        base = resident[1][process] if len(resident) > 1 else None
        ratio = None if base is None else ours / base
        report.add(
            Line(
                name=f"resident memory of `everturn {process}` after {_WARM_UP_TURNS} turns",
                value=ours,
                unit="MB",
                target=_MOST_MB,
                base=base,
                to_base=None if ratio is None else Interval(ratio, ratio, ratio),
            )
        )
    whole = ", ".join(
        f"{side} {stage.stack.memory_mb():.0f} MB"
        for side, stage in zip((OURS, BASE), stages, strict=False)
    )
    report.note(f"Memory of `everturn dev` with its servers, what is shared counted once: {whole}.")


async def _resident_mb(stage: Stage) -> dict[str, float]:
    async with (
        stage.stack.further("api") as (api, port),
        stage.stack.further("worker", "--queue", "turns") as (worker, _),
    ):
        chats = await stage.make_chats(_WARM_UP_TURNS)
        requests = [stage.message(chat, _WARM_UP, port=port) for chat in chats]
        await stage.ground.client.run(requests, concurrency=8)
        await stage.settle()
        return {
            "api": psutil.Process(api).memory_info().rss / 1e6,
            "worker --queue turns": psutil.Process(worker).memory_info().rss / 1e6,
        }
