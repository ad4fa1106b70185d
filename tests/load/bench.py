"""`make bench`: Everturn beside a plain proxy and beside the bare engine, in one run.

    python -m tests.load.bench [--quick] [--only turn,engine,api,streams,tools,scale,sizing]
                               [--shape apart]

A full run is written into docs/benchmarks.md. No figure fails the run: the table says which targets
are met.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.load.pace import pace_ms
from tests.load.population import Size, populate
from tests.load.reads import measure_api
from tests.load.report import Report, write_benchmarks
from tests.load.scale import measure_scale
from tests.load.sizing import SizingEffort, measure_sizing
from tests.load.stage import Shape, Stage, open_stage
from tests.load.streams import measure_streams
from tests.load.tools import ToolEffort, measure_tools
from tests.load.turns import (
    TurnEffort,
    measure_engine,
    measure_latency,
    measure_rate,
    measure_tool_turn,
)

_SECTIONS = ("turn", "engine", "api", "streams", "tools", "scale")
_SIZING = "sizing"
"""For docs/sizing.md alone: not in the table of benchmarks."""

_ON_THEIR_OWN = {"scale", _SIZING}
"""Sections with databases of their own: the others measure turns, not its size."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured. `watch_s` holds more than one keep-alive of each stream."""

    turns: TurnEffort
    requests: int
    streams: int
    watch_s: float
    tools: ToolEffort
    scale: float
    sizing: SizingEffort


_FULL = Effort(
    TurnEffort(rounds=3, alone=25, at_16=48, with_tool=15, at_32=288),
    requests=800,
    streams=1000,
    watch_s=16.0,
    tools=ToolEffort(rounds=6, in_flight=200, plain=60, watch_s=5.0),
    scale=1.0,
    sizing=SizingEffort(share=1.0, idle_s=20.0, held=200),
)
_QUICK = Effort(
    TurnEffort(rounds=1, alone=20, at_16=48, with_tool=15, at_32=96),
    requests=200,
    streams=200,
    watch_s=1.0,
    tools=ToolEffort(rounds=3, in_flight=50, plain=20, watch_s=2.0),
    scale=0.05,
    sizing=SizingEffort(share=0.34, idle_s=5.0, held=60),
)


async def measure(sections: Collection[str], shapes: Sequence[Shape], effort: Effort) -> Report:
    """Measure each shape on the same data, one after the other."""
    report = Report()
    paces = [pace_ms()]
    with tempfile.TemporaryDirectory(prefix="everturn-bench-") as folder:
        if "scale" in sections:
            await _measure_scale(Path(folder) / "scale", report, effort)
            paces.append(pace_ms())
        if _SIZING in sections:
            _say("sizing: what turns, streams and reads need")
            await measure_sizing(Path(folder) / "sizing", report, effort.sizing)
            paces.append(pace_ms())
        for shape in shapes if set(sections) - _ON_THEIR_OWN else ():
            _say(f"{shape}: starting")
            begun = time.monotonic()
            async with open_stage(Path(folder) / "data", shape) as stage:
                _say(f"{shape}: ready after {time.monotonic() - begun:.1f} s")
                await _measure_shape(stage, report, sections, effort)
            paces.append(pace_ms())
    listed = ", ".join(f"{pace:.0f}" for pace in paces)
    report.note(
        "Speed of the machine, before the first measurement and after each: a loop of a million "
        f"additions in Python took {listed} ms."
    )
    return report


async def _measure_scale(directory: Path, report: Report, effort: Effort) -> None:
    """Measure reads on a database of real size."""
    _say("scale: filling the database")
    async with open_stage(directory, Shape.APART) as stage:
        begun = time.monotonic()
        await populate(stage.stack.migration_database, Size.scaled(effort.scale))
        _say(f"scale: filled after {time.monotonic() - begun:.0f} s")
        await measure_scale(stage, report, count=effort.requests)


async def _measure_shape(
    stage: Stage, report: Report, sections: Collection[str], effort: Effort
) -> None:
    if "turn" in sections:
        _say(f"{stage.shape}: turns")
        await measure_latency(stage, report, effort.turns)
        await measure_tool_turn(stage, report, effort.turns)
        await measure_rate(stage, report, effort.turns)
    if stage.shape is Shape.EAGER:
        return
    if "engine" in sections:
        _say(f"{stage.shape}: the engine")
        await measure_engine(stage, report, effort.turns)
    if "api" in sections:
        _say(f"{stage.shape}: API")
        await measure_api(stage, report, count=effort.requests)
    if "streams" in sections:
        _say(f"{stage.shape}: streams")
        await measure_streams(stage, report, count=effort.streams, watch_s=effort.watch_s)
    if "tools" in sections:
        _say(f"{stage.shape}: tools in flight")
        await measure_tools(stage, report, effort.tools)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, about a minute")
    parser.add_argument(
        "--only",
        default=",".join(_SECTIONS),
        help=f"some of the default, %(default)s; or {_SIZING}",
    )
    parser.add_argument(
        "--shape", choices=["apart", "eager", "both"], help="both by default, with --quick apart"
    )
    return parser.parse_args()


async def _main() -> None:
    arguments = _arguments()
    sections = arguments.only.split(",")
    if unknown := set(sections) - {*_SECTIONS, _SIZING}:
        raise SystemExit(f"unknown section: {', '.join(sorted(unknown))}")
    shape = arguments.shape or ("apart" if arguments.quick else "both")
    shapes = list(Shape) if shape == "both" else [Shape[shape.upper()]]
    is_full = shape == "both" and set(sections) == set(_SECTIONS) and not arguments.quick
    # The other sections are measured with workers apart only and need no second start.
    if "turn" not in sections:
        shapes = [Shape.APART]
    report = await measure(sections, shapes, _QUICK if arguments.quick else _FULL)
    sys.stdout.write(report.markdown())
    if is_full:
        await write_benchmarks(report)


if __name__ == "__main__":
    asyncio.run(_main())
