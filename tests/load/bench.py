"""`make bench`: Everturn beside a plain proxy and, with a base, beside an earlier commit.

    python -m tests.load.bench [--quick] [--only turn,long,api,streams,tools,memory,start,growth,
                               scale,sizing] [--shape apart] [--base v0.1.0]

A full run is written into docs/benchmarks.md. A section that fails does not keep the others from
being measured. Exits with 1 if one failed, or if a figure is worse than the base's by over a tenth.
"""

import argparse
import asyncio
import sys
import tempfile
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from tests.load.comparison import Effort
from tests.load.growth import (
    measure_memory,
    measure_point,
    measure_start,
    measure_stored_turns,
    measure_workers,
)
from tests.load.history import checked_out, resolve_base, write_benchmarks
from tests.load.machine import Noise
from tests.load.population import Size, populate
from tests.load.report import Report
from tests.load.scale import measure_api, measure_scale
from tests.load.sizing import SizingEffort, measure_sizing
from tests.load.stacks import HERE, ROOT, Checkout, make_folder
from tests.load.stage import Ground, Shape, Stage, open_ground, open_stage
from tests.load.streams import LongEffort, measure_long_answers, measure_streams
from tests.load.tools import ToolEffort, measure_tools
from tests.load.turns import TurnEffort, measure_turns

_ON_A_STAGE: Final = ("turn", "long", "api", "streams", "tools", "memory")
_IN_BOTH_SHAPES: Final = {"turn", "long"}
_ON_THEIR_OWN: Final = ("start", "growth", "scale")
_FULL_RUN: Final = (*_ON_A_STAGE, *_ON_THEIR_OWN)
_QUICK_RUN: Final = ("turn", "long", "api", "streams")
_SIZING: Final = "sizing"
"""For docs/sizing.md alone: not in the table of benchmarks."""

_STORED_AT_SCALE: Final = 500_000
_LONGEST_S: Final = 600
"""How long a section may take before it has failed."""

_OUTPUT: Final = ROOT / "dist" / "bench"


@dataclass(frozen=True, slots=True)
class Efforts:
    """How much is measured. `watch_s` holds more than one keep-alive of each stream."""

    turns: TurnEffort
    long: LongEffort
    requests: int
    api: Effort
    streams: int
    watch_s: float
    tools: ToolEffort
    start: Effort
    growth: Effort
    stored_turns: int
    scale: float
    sizing: SizingEffort


FULL: Final = Efforts(
    turns=TurnEffort(Effort(least=5, most=16, within_s=25), alone=12, at_16=32, at_32=96),
    long=LongEffort(Effort(least=3, most=5, within_s=50), turns=200, tokens=400),
    requests=400,
    api=Effort(least=3, most=8, within_s=5),
    streams=1000,
    watch_s=16.0,
    tools=ToolEffort(rounds=5, in_flight=200, plain=40, watch_s=3.0),
    start=Effort(least=3, most=5, within_s=25),
    growth=Effort(least=3, most=6, within_s=12),
    stored_turns=100_000,
    scale=1.0,
    sizing=SizingEffort(share=1.0, idle_s=20.0, held=200),
)
QUICK: Final = Efforts(
    turns=TurnEffort(Effort(least=2, most=4, within_s=5), alone=8, at_16=16, at_32=48),
    long=LongEffort(Effort(least=1, most=1, within_s=0), turns=50, tokens=100),
    requests=200,
    api=Effort(least=2, most=3, within_s=1),
    streams=200,
    watch_s=1.0,
    tools=ToolEffort(rounds=3, in_flight=50, plain=20, watch_s=1.0),
    start=Effort(least=1, most=1, within_s=0),
    growth=Effort(least=2, most=2, within_s=0),
    stored_turns=10_000,
    scale=0.02,
    sizing=SizingEffort(share=0.34, idle_s=5.0, held=60),
)


class Bench:
    """One run: its sections, one after the other, each with its own failure."""

    def __init__(
        self, ground: Ground, folder: Path, efforts: Efforts, checkouts: Sequence[Checkout]
    ) -> None:
        self._ground = ground
        self._folder = folder
        self._efforts = efforts
        self._checkouts = checkouts
        self.report = Report()
        self._noise = Noise()
        self._noise.read()

    async def measure(self, sections: Collection[str], shapes: Sequence[Shape]) -> None:
        """Measure these sections; the stages of each shape are opened once."""
        for shape in shapes:
            is_first = shape is shapes[0]
            wanted = [
                section
                for section in _ON_A_STAGE
                if section in sections and (is_first or section in _IN_BOTH_SHAPES)
            ]
            if wanted:
                measure_shape = partial(self._measure_shape, shape, wanted)
                await self._attempt(str(shape), measure_shape, within_s=None)
        for section, measure in self._on_their_own().items():
            if section in sections:
                await self._attempt(section, measure)
        self.report.note(self._noise.describe())

    async def _attempt(
        self,
        section: str,
        measure: Callable[[], Awaitable[None]],
        *,
        within_s: float | None = _LONGEST_S,
    ) -> None:
        """Measure one section; whatever fails in it is reported, and the run goes on."""
        _say(f"{section}: begun")
        begun = time.monotonic()
        try:
            async with asyncio.timeout(within_s):
                await measure()
        except Exception as error:  # noqa: BLE001 -- the figures of the other sections are not lost
            traceback.print_exc()
            self.report.failures.append(f"{section}: {type(error).__name__}: {error}"[:300])
            await self._ground.start_over()
        _say(f"{section}: {time.monotonic() - begun:.0f} s")
        self._noise.read()

    async def _measure_shape(self, shape: Shape, sections: Sequence[str]) -> None:
        async with AsyncExitStack() as opened:
            stages = [
                await opened.enter_async_context(
                    open_stage(self._folder / f"{number}", self._ground, shape, checkout=checkout)
                )
                for number, checkout in enumerate(self._checkouts)
            ]
            for section, measure in self._on_stages(stages).items():
                if section in sections:
                    await self._attempt(f"{section}, {shape}", measure)

    def _on_stages(self, stages: Sequence[Stage]) -> Mapping[str, Callable[[], Awaitable[None]]]:
        efforts, report, stage = self._efforts, self.report, stages[0]
        return {
            "turn": lambda: measure_turns(stages, report, efforts.turns),
            "long": lambda: measure_long_answers(stages, report, efforts.long),
            "api": lambda: measure_api(stages, report, count=efforts.requests, effort=efforts.api),
            "streams": lambda: measure_streams(
                stage, report, count=efforts.streams, watch_s=efforts.watch_s
            ),
            "tools": lambda: measure_tools(stage, report, efforts.tools),
            "memory": lambda: measure_memory(stages, report),
        }

    def _on_their_own(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        efforts, ground, folder = self._efforts, self._ground, self._folder
        return {
            "start": lambda: measure_start(
                folder / "start",
                ground,
                self.report,
                checkouts=self._checkouts,
                effort=efforts.start,
            ),
            "growth": self._measure_growth,
            "scale": self._measure_scale,
            _SIZING: lambda: measure_sizing(folder / "sizing", ground, self.report, efforts.sizing),
        }

    async def _measure_growth(self) -> None:
        count, effort = self._efforts.turns.at_32, self._efforts.growth
        async with open_stage(self._folder / "growth", self._ground) as stage:
            await measure_workers(stage, self.report, count=count, effort=effort)
            await measure_stored_turns(
                stage, self.report, most=self._efforts.stored_turns, count=count, effort=effort
            )

    async def _measure_scale(self) -> None:
        """Measure reads and turns on a database of real size."""
        scale, report = self._efforts.scale, self.report
        async with open_stage(self._folder / "scale", self._ground) as stage:
            begun = time.monotonic()
            await populate(stage.stack.superuser, Size.scaled(scale))
            _say(f"scale: filled after {time.monotonic() - begun:.0f} s")
            await measure_scale(stage, report, count=self._efforts.requests)
            await measure_point(
                stage,
                report,
                what="stored turns",
                number=int(_STORED_AT_SCALE * scale),
                count=self._efforts.turns.at_32,
                effort=self._efforts.growth,
            )


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _keep(page: str, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, 90 seconds")
    parser.add_argument(
        "--only",
        type=lambda listed: listed.split(","),
        help=f"some of {','.join((*_FULL_RUN, _SIZING))}; by default all but the last, with "
        f"--quick {','.join(_QUICK_RUN)}",
    )
    parser.add_argument(
        "--shape", choices=["apart", "eager", "both"], help="both by default, with --quick apart"
    )
    parser.add_argument(
        "--base",
        help="a commit or tag to compare with; `last` is the last release, or the last run's",
    )
    arguments = parser.parse_args()
    arguments.only = arguments.only or list(_QUICK_RUN if arguments.quick else _FULL_RUN)
    if unknown := set(arguments.only) - {*_FULL_RUN, _SIZING}:
        parser.error(f"unknown section: {', '.join(sorted(unknown))}")
    return arguments


@asynccontextmanager
async def _checkouts(base: str | None, folder: Path) -> AsyncIterator[Sequence[Checkout]]:
    """Yield what is here and, with a base, what was."""
    if base is None:
        yield (HERE,)
        return
    commit = await resolve_base(base)
    _say(f"base: {commit}")
    async with checked_out(commit, folder) as checkout:
        yield HERE, checkout


async def _main() -> int:
    arguments = _arguments()
    shape = arguments.shape or ("apart" if arguments.quick else "both")
    shapes = list(Shape) if shape == "both" else [Shape[shape.upper()]]
    begun = time.monotonic()
    # Not /tmp, which may be in memory: users keep their data on a disk.
    with tempfile.TemporaryDirectory(prefix="everturn-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        await asyncio.to_thread(make_folder, folder)
        async with (
            _checkouts(arguments.base, folder / "base") as checkouts,
            open_ground() as ground,
        ):
            bench = Bench(ground, folder, QUICK if arguments.quick else FULL, checkouts)
            await bench.measure(arguments.only, shapes)
    report = bench.report
    report.note(f"The run took {(time.monotonic() - begun) / 60:.0f} minutes.")
    page = report.markdown()
    sys.stdout.write(page)
    await asyncio.to_thread(_keep, page, _OUTPUT / "report.md")
    if shape == "both" and set(arguments.only) == set(_FULL_RUN) and not arguments.quick:
        await write_benchmarks(report)
    for failure in report.failures:
        _say(f"Failed: {failure}")
    for regression in report.regressions:
        _say(f"Regression: {regression}")
    return 1 if report.failures or report.regressions else 0


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(_main()))
    except KeyboardInterrupt:
        sys.exit(130)
