"""Measures turns: time to the first token, whole turns, rate, CPU, history."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from temporalio.client import Client

from schema.ids import TurnId, turn_workflow_id
from tests.load.bare_engine import BareEngine, bare_engine
from tests.load.cpu import CpuTimes
from tests.load.report import Line, Report
from tests.load.samples import Sample, Spread, per_second, spread
from tests.load.stage import MODEL, Shape, Stage

_PLAIN = "Say something plain."
_WITH_TOOL = "What is 6 * 7?"
_PIECES = tuple(f"piece {number} " for number in range(10))
_REPEAT = 1_000_000
_FIRST_MS = {Shape.APART: 60, Shape.EAGER: 30}
_FIRST_16_MS = {Shape.APART: 150, Shape.EAGER: 80}
_TOOL_MS = 90
_MOST_EVENTS = 13
# The model's own time is the same on both sides, and too short to hide anything.
_QUICK = {"delay_to_first_s": 0.05, "delay_between_s": 0.0}
# A model that is quick beside real ones, and slow enough for 16 turns not to fill two cores.
_CALM = {"delay_to_first_s": 0.2, "delay_between_s": 0.1}
_CALM_TURN_S = 1.2


@dataclass(frozen=True, slots=True)
class TurnEffort:
    """How often each case is measured, over how many rounds that alternate with the floor."""

    rounds: int
    alone: int
    at_16: int
    with_tool: int
    at_32: int


async def measure_latency(stage: Stage, report: Report, effort: TurnEffort) -> None:
    """Measure what Everturn adds to the time to the first token, alone and among 16."""
    await stage.script(pieces=_PIECES, repeat=_REPEAT, **_QUICK)
    ours, floor = await _both(stage, _PLAIN, effort.rounds, effort.alone)
    name = "first token, 1 turn at a time"
    report.add(*_pair(stage, name, _first(ours), _first(floor), target=_FIRST_MS[stage.shape]))
    report.add(*_pair(stage, "whole plain turn", _whole(ours), _whole(floor)))
    await stage.script(pieces=_PIECES, repeat=_REPEAT, **_CALM)
    ours, floor = await _both(
        stage, _PLAIN, effort.rounds, effort.at_16, concurrency=16, spread_s=_CALM_TURN_S
    )
    name = "first token, 16 turns"
    report.add(*_pair(stage, name, _first(ours), _first(floor), target=_FIRST_16_MS[stage.shape]))


async def measure_tool_turn(stage: Stage, report: Report, effort: TurnEffort) -> None:
    """Measure what Everturn adds to a turn of two model calls with the calculator between."""
    await stage.script(repeat=_REPEAT, **_QUICK)
    ours, floor = await _both(stage, _WITH_TOOL, effort.rounds, effort.with_tool)
    name = "whole turn with a tool call"
    report.add(*_pair(stage, name, _whole(ours), _whole(floor), target=_TOOL_MS))
    report.add(*await _history(stage, ours[-1], "with a tool call"))


async def measure_rate(stage: Stage, report: Report, effort: TurnEffort) -> None:
    """Measure turns per second and the CPU of each; where workers are apart the engine's too."""
    await stage.script(pieces=_PIECES, delay_to_first_s=0, delay_between_s=0, repeat=_REPEAT)
    ours: list[list[Sample]] = []
    floor: list[list[Sample]] = []
    used: list[tuple[CpuTimes, CpuTimes, CpuTimes]] = []
    async with bare_engine(stage.stack.addresses.temporal) as engine:
        await engine.run(16, concurrency=16)
        bare: list[list[Sample]] = []
        for _ in range(effort.rounds):
            chats = await stage.make_chats(effort.at_32 // effort.rounds)
            requests = [stage.message(chat, _PLAIN) for chat in chats]
            before = stage.cpu(), stage.client_cpu()
            ours.append(await stage.client.run(requests, concurrency=32))
            mine, clients = stage.cpu().since(before[0]), stage.client_cpu().since(before[1])
            idle = stage.floor_cpu()
            floor.append(await stage.floor_turns(_PLAIN, len(requests), concurrency=32))
            used.append((mine, clients, stage.floor_cpu().since(idle)))
            bare.append(await engine.run(len(requests), concurrency=32))
    _add_rates(stage, report, ours=ours, floor=floor, bare=bare)
    _add_cpu(stage, report, used, count=sum(map(len, ours)))
    report.add(*await _history(stage, ours[-1][-1], "plain", most_events=_MOST_EVENTS))


async def measure_engine(stage: Stage, report: Report, effort: TurnEffort) -> None:
    """Measure the engine alone."""
    address = stage.stack.addresses.temporal
    async with bare_engine(address) as engine:
        await engine.run(8, concurrency=2)
        alone = await engine.run(effort.rounds * effort.alone, concurrency=1)
        report.add(
            Line(name="bare workflow: first step, p50", value=_first(alone).p50),
            Line(name="bare workflow: whole, p50", value=_whole(alone).p50),
        )
        for concurrency in (16, 32):
            await _add_bare_rate(stage, report, engine, concurrency=concurrency, count=effort.at_32)


async def _add_bare_rate(
    stage: Stage, report: Report, engine: BareEngine, *, concurrency: int, count: int
) -> None:
    pids = {"server": stage.stack.pid("temporal") or 0, "worker": engine.worker_pid}
    before = CpuTimes.now(pids)
    samples = await engine.run(count, concurrency=concurrency)
    used = CpuTimes.now(pids).since(before).per(count).by_name
    rate = per_second([samples])
    report.add(Line(name=f"bare workflows at {concurrency}", value=rate, unit="/s"))
    report.note(
        f"A bare workflow at {concurrency} concurrent uses {used['server']:.0f} ms of CPU in the "
        f"server and {used['worker']:.0f} ms in the worker."
    )


async def _both(
    stage: Stage,
    content: str,
    rounds: int,
    count: int,
    *,
    concurrency: int = 1,
    spread_s: float = 0,
) -> tuple[list[Sample], list[Sample]]:
    """Measure both sides in turns, after a warm-up."""
    ours: list[Sample] = []
    floor: list[Sample] = []
    for send in (stage.turns, stage.floor_turns):
        await send(content, max(4, concurrency), concurrency=concurrency)
    for _ in range(rounds):
        for send, side in ((stage.floor_turns, floor), (stage.turns, ours)):
            side.extend(await send(content, count, concurrency=concurrency, spread_s=spread_s))
    return ours, floor


def _pair(
    stage: Stage, name: str, mine: Spread, floor: Spread, *, target: float | None = None
) -> tuple[Line, Line]:
    """Return the lines of the median and the 95th percentile; the target holds for both."""

    def line(percentile: str, value: float, floor: float) -> Line:
        return Line(
            name=f"{name}, {percentile}",
            shape=stage.shape,
            value=value,
            floor=floor,
            target=target,
            against_floor=True,
        )

    return line("p50", mine.p50, floor.p50), line("p95", mine.p95, floor.p95)


def _add_rates(
    stage: Stage,
    report: Report,
    *,
    ours: Sequence[Sequence[Sample]],
    floor: Sequence[Sequence[Sample]],
    bare: Sequence[Sequence[Sample]],
) -> None:
    mine, engines = per_second(ours), per_second(bare)
    first = _first([sample for batch in ours for sample in batch])
    report.add(
        Line(
            name="turns at 32 concurrent",
            shape=stage.shape,
            value=mine,
            unit="/s",
            floor=per_second(floor),
            target=25,
            least=True,
        ),
        Line(name="bare workflows between them", value=engines, unit="/s"),
        Line(
            name="turns for each bare workflow",
            shape=stage.shape,
            value=100 * mine / engines,
            unit="%",
            target=75,
            least=True,
        ),
    )
    report.note(
        f"With {stage.shape}, 32 turns fill the machine, and the first token comes "
        f"after {first.p50:.0f} ms (p95 {first.p95:.0f} ms)."
    )


def _add_cpu(
    stage: Stage,
    report: Report,
    used: Sequence[tuple[CpuTimes, CpuTimes, CpuTimes]],
    *,
    count: int,
) -> None:
    mine, clients, floors = used[0]
    for more_mine, more_clients, more_floors in used[1:]:
        mine, clients = mine.plus(more_mine), clients.plus(more_clients)
        floors = floors.plus(more_floors)
    per_turn = mine.per(count)
    report.add(
        Line(
            name="CPU of a turn, servers included",
            shape=stage.shape,
            value=per_turn.total(without=(MODEL,)),
            floor=floors.per(count).total(without=(MODEL,)),
            target=70,
        )
    )
    shares = ", ".join(f"{name} {ms:.1f}" for name, ms in per_turn.by_name.items())
    report.note(
        f"With {stage.shape}: CPU of a turn in ms: {shares}; the load client "
        f"{clients.per(count).total():.1f}. With the model a turn takes {per_turn.total():.0f} ms, "
        f"the floor {floors.per(count).total():.1f} ms."
    )


async def _history(
    stage: Stage, sample: Sample, kind: str, *, most_events: int | None = None
) -> tuple[Line, Line]:
    client = await Client.connect(stage.stack.addresses.temporal)
    handle = client.get_workflow_handle(turn_workflow_id(TurnId(UUID(sample.turn_id))))
    await handle.result()
    execution = (await handle.describe()).raw_description.workflow_execution_info
    name, shape = f"history of a turn {kind}", stage.shape
    kilobytes = execution.history_size_bytes / 1000
    return (
        Line(
            name=name,
            shape=shape,
            value=execution.history_length,
            unit="events",
            target=most_events,
        ),
        Line(name=name, shape=shape, value=kilobytes, unit="kB"),
    )


def _first(samples: Sequence[Sample]) -> Spread:
    return spread(sample.first_ms for sample in samples)


def _whole(samples: Sequence[Sample]) -> Spread:
    return spread(sample.whole_ms for sample in samples)
