"""Measures turns beside the floor: time to the first token, whole turns, rate, CPU, history."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final
from uuid import UUID

from schema.ids import TurnId, turn_workflow_id
from tests.load.client import Sample, per_second
from tests.load.comparison import Comparison, Effort, percentile
from tests.load.machine import CpuTimes
from tests.load.model import Play
from tests.load.report import BASE, FLOOR, OURS, Figure, Line, Report, Rounds
from tests.load.stage import Batch, Shape, Stage

AT_32: Final = Play(first_s=0.0, tokens=20, between_s=0.0)
_ALONE: Final = Play(first_s=0.05, tokens=10, between_s=0.01)
_TOOL: Final = Play(first_s=0.05, tokens=10, between_s=0.01, tool="calculator")
_AT_16: Final = Play(first_s=0.2, tokens=40, between_s=0.02)

_FIRST_MS: Final = {Shape.APART: 35, Shape.EAGER: 22}
_FIRST_16_MS: Final = {Shape.APART: 80, Shape.EAGER: 60}
_TOOL_MS: Final = {Shape.APART: 80, Shape.EAGER: 65}
_RATE: Final = 32
_CPU_MS: Final = 45
_MOST_EVENTS: Final = 13


@dataclass(frozen=True, slots=True)
class TurnEffort:
    """How long each case is measured, and how many turns a batch of it has."""

    effort: Effort
    alone: int
    at_16: int
    at_32: int


@dataclass(frozen=True, slots=True)
class _Case:
    """What is timed of turns that are answered so; `target` bounds the median over the floor."""

    name: str
    play: Play
    count: int
    of: Callable[[Sample], float]
    target: float
    concurrency: int = 1


async def measure_turns(stages: Sequence[Stage], report: Report, effort: TurnEffort) -> None:
    """Measure the first stage, and beside it the base if there is a second one."""
    shape = stages[0].shape
    for case in (
        _Case("first token, 1 turn at a time", _ALONE, effort.alone, first_ms, _FIRST_MS[shape]),
        _Case("first token, 16 at once", _AT_16, effort.at_16, first_ms, _FIRST_16_MS[shape], 16),
        _Case("whole turn with a tool call", _TOOL, effort.alone, whole_ms, _TOOL_MS[shape]),
    ):
        await _measure_case(stages, report, case, effort.effort)
    await _measure_rate(stages, report, effort)


async def _measure_case(
    stages: Sequence[Stage], report: Report, case: _Case, effort: Effort
) -> None:
    shape = stages[0].shape
    median, tail = _added(case.name, case.of, target=case.target)
    rounds = await compare(
        stages, case.play, case.count, until=(median,), concurrency=case.concurrency, effort=effort
    )
    report.compare(rounds, median, tail, shape=shape)
    report.plot(
        "added",
        case=case.name,
        shape=shape,
        p50=median.interval(rounds).value,
        low=median.interval(rounds).low,
        high=median.interval(rounds).high,
        p95=tail.interval(rounds).value,
        target=case.target,
    )
    if case.of is not whole_ms:
        report.compare(rounds, *_added(f"whole turn, {case.name[13:]}", whole_ms), shape=shape)
    if case.concurrency == 1:
        kind = "with a tool call" if case.play.tool else "plain"
        sample = rounds[-1][OURS].samples[-1]
        report.add(*await _history(stages[0], sample, kind))


async def _measure_rate(stages: Sequence[Stage], report: Report, effort: TurnEffort) -> None:
    shape = stages[0].shape
    rounds = await compare_rates(stages, effort.at_32, effort.effort)
    report.compare(
        rounds,
        *rate_figures("at 32"),
        *_added("first token, 32 at once", first_ms),
        *_added("whole turn, 32 at once", whole_ms),
        shape=shape,
    )
    report.note(f"With {shape}, CPU of a turn at 32 in ms: {shares(rounds)}.")


async def compare_rates(stages: Sequence[Stage], count: int, effort: Effort) -> Rounds:
    """Measure batches of turns without delays, 32 at a time, beside the floor."""
    figures = rate_figures("at 32")
    return await compare(stages, AT_32, count, until=figures[:2], concurrency=32, effort=effort)


def rate_figures(which: str) -> tuple[Figure, Figure, Figure]:
    """Return turns per second, and the CPU of a turn without and with what comes after it."""
    return (
        Figure(
            name=f"turns {which}",
            of=lambda batches: per_second([batch.samples for batch in batches]),
            unit="/s",
            target=_RATE,
            least=True,
        ),
        Figure(
            name=f"CPU of a turn {which}, until the last answer",
            of=lambda batches: cpu_per_turn(batches, lambda batch: batch.cpu),
            target=_CPU_MS,
        ),
        Figure(
            name=f"CPU of a turn {which}, with memories and title",
            of=lambda batches: cpu_per_turn(batches, lambda batch: batch.whole_cpu),
            target=_CPU_MS,
        ),
    )


def cpu_per_turn(batches: Sequence[Batch], of: Callable[[Batch], CpuTimes]) -> float:
    """Return the CPU of all the side's processes for each turn. Units: milliseconds."""
    return sum(of(batch).total for batch in batches) / sum(len(batch.samples) for batch in batches)


def shares(rounds: Rounds) -> str:
    """Return what each process used of a turn's CPU, all that the turn caused included."""
    used, count = CpuTimes({}), 0
    for measured in rounds:
        used = used.plus(measured[OURS].whole_cpu)
        count += len(measured[OURS].samples)
    return ", ".join(f"{name} {ms:.1f}" for name, ms in used.per(count).by_name.items() if ms > 0)


async def compare(
    stages: Sequence[Stage],
    play: Play,
    count: int,
    *,
    until: Sequence[Figure],
    effort: Effort,
    concurrency: int = 1,
    is_warm: bool = False,
) -> Rounds:
    """Measure batches of all sides in turns, after a warm-up, until these figures are narrow."""
    sides: dict[str, Callable[[int], Awaitable[Batch]]] = {
        FLOOR: partial(stages[0].ground.floor_batch, play, concurrency=concurrency)
    }
    for side, stage in zip((OURS, BASE), stages, strict=False):
        sides[side] = partial(stage.batch, play, concurrency=concurrency)
    for measure in () if is_warm else sides.values():
        await measure(max(4, concurrency))

    def is_enough(rounds: Sequence[Mapping[str, Batch]]) -> bool:
        return all(figure.is_narrow(rounds) for figure in until)

    batches = {side: partial(measure, count) for side, measure in sides.items()}
    return await Comparison(batches, effort).run(is_enough)


def _added(
    name: str, of: Callable[[Sample], float], *, target: float | None = None
) -> tuple[Figure, Figure]:
    """Return what is added to the floor's median and 95th percentile; the target is of the first.

    A 95th percentile varies more: its interval may be wider.
    """

    def at(share: float) -> Callable[[Sequence[Batch]], float]:
        return lambda batches: percentile(
            (of(sample) for batch in batches for sample in batch.samples), share
        )

    return (
        Figure(name=f"{name}, p50", of=at(0.5), against="difference", target=target),
        Figure(name=f"{name}, p95", of=at(0.95), against="difference", share=0.15),
    )


def first_ms(sample: Sample) -> float:
    """Return the time to the first token."""
    return sample.first_ms


def whole_ms(sample: Sample) -> float:
    """Return the time to the end of the answer."""
    return sample.whole_ms


async def _history(stage: Stage, sample: Sample, kind: str) -> tuple[Line, Line]:
    workflow_id = turn_workflow_id(TurnId(UUID(sample.turn_id)))
    handle = stage.temporal.get_workflow_handle(workflow_id)
    await handle.result()
    execution = (await handle.describe()).raw_description.workflow_execution_info
    name, shape = f"history of a turn {kind}", stage.shape
    most = _MOST_EVENTS if kind == "plain" else None
    events, kilobytes = execution.history_length, execution.history_size_bytes / 1000
    return (
        Line(name=name, shape=shape, value=events, unit="events", target=most),
        Line(name=name, shape=shape, value=kilobytes, unit="kB"),
    )
