"""Measures open streams: what silent ones cost the API process, and long answers all processes."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import psutil

from tests.load.client import Request
from tests.load.comparison import Effort, percentile, thinned
from tests.load.machine import CpuTimes
from tests.load.model import Play
from tests.load.report import FLOOR, OURS, Figure, Line, Report, Rounds
from tests.load.stage import Batch, Stage
from tests.load.turns import compare, cpu_per_turn, shares

_TURNS: Final = 20
_WARM_UP: Final = 100
_STREAM_KB: Final = 50
_TOKENS_PER_SECOND: Final = 50
_MOST_TIMES_THE_FLOOR: Final = 2
_DELAY_MS: Final = 60
_CURVE: Final = 200


@dataclass(frozen=True, slots=True)
class LongEffort:
    """How many turns of how many tokens are open at a time, and how often."""

    effort: Effort
    turns: int
    tokens: int


async def measure_long_answers(stages: Sequence[Stage], report: Report, effort: LongEffort) -> None:
    """Measure turns that stream for seconds, all begun at once, beside the floor."""
    shape = stages[0].shape
    play = Play(first_s=0.2, tokens=effort.tokens, between_s=1 / _TOKENS_PER_SECOND)
    what = f"{effort.turns} open turns of {effort.tokens} tokens"
    figures = _long_figures(what, effort.tokens)
    memory_kb = [await _memory_of_turns(stage, play, effort.turns) for stage in stages]
    rounds = await compare(
        stages,
        play,
        effort.turns,
        until=figures[:1],
        concurrency=effort.turns,
        effort=effort.effort,
        is_warm=True,
    )
    report.compare(rounds, *figures, shape=shape)
    report.add(
        Line(
            name=f"memory of each of {what}, API and workers",
            shape=shape,
            value=memory_kb[0],
            unit="kB",
        )
    )
    report.note(
        f"With {shape}, {what}: CPU of a turn in ms: {shares(rounds)}. {_pace(rounds, play)}"
    )
    for side in (OURS, FLOOR):
        delays = thinned([ms for measured in rounds for ms in measured[side].delays_ms], _CURVE)
        report.plot("delays", side=side, shape=shape, ms=delays, what=what)


async def _memory_of_turns(stage: Stage, play: Play, count: int) -> float:
    """Return what each open turn adds to the memory of API and workers. Units: kilobytes.

    Reading it takes CPU that would delay tokens, so it is no round: it is the warm-up.
    """
    # What the first turns leave is taken again by as many of the others.
    warm = count // 4
    await stage.batch(play, warm, concurrency=warm)
    before_mb = stage.stack.own_memory_mb()
    # Turns begin one after the other: by then most have, and none has ended.
    all_open_s = 0.8 * (play.first_s + play.tokens * play.between_s)
    batch = await stage.batch(play, count, concurrency=count, held_after_s=all_open_s)
    return 1000 * (batch.held_mb - before_mb) / (count - warm)


def _long_figures(what: str, tokens: int) -> tuple[Figure, ...]:
    def cpu(batches: Sequence[Batch]) -> float:
        return cpu_per_turn(batches, lambda batch: batch.cpu)

    def whole_cpu(batches: Sequence[Batch]) -> float:
        return cpu_per_turn(batches, lambda batch: batch.whole_cpu)

    return (
        Figure(
            name=f"CPU of each of {what}",
            of=cpu,
            against="ratio",
            target=_MOST_TIMES_THE_FLOOR,
        ),
        Figure(
            name=f"CPU of each of {what}, with memories and title", of=whole_cpu, against="ratio"
        ),
        Figure(
            name=f"CPU of a token, {what}",
            of=lambda batches: 1000 * cpu(batches) / tokens,
            unit="µs",
            against="ratio",
            target=_MOST_TIMES_THE_FLOOR,
        ),
        Figure(name=f"delay of a token, {what}, p50", of=_delay(0.5), share=0.1),
        Figure(name=f"delay of a token, {what}, p99", of=_delay(0.99), target=_DELAY_MS, share=0.2),
    )


def _delay(share: float) -> Callable[[Sequence[Batch]], float]:
    return lambda batches: percentile((ms for batch in batches for ms in batch.delays_ms), share)


def _pace(rounds: Rounds, play: Play) -> str:
    """Return how long the turns took, beside what the model alone takes."""
    alone_s = play.first_s + (play.tokens - 1) * play.between_s
    taken = {
        side: percentile(
            (sample.whole_ms / 1000 for measured in rounds for sample in measured[side].samples),
            0.95,
        )
        for side in (OURS, FLOOR)
    }
    listed = ", ".join(f"{side} {seconds:.1f} s" for side, seconds in taken.items())
    return f"An answer is whole after (p95): {listed}; the model alone takes {alone_s:.1f} s."


async def measure_streams(stage: Stage, report: Report, *, count: int, watch_s: float) -> None:
    """Hold turns open, follow them over many streams, and look at the API process.

    `watch_s` is how long CPU is counted while the streams are silent but for keep-alives.
    """
    await _follow(stage, _WARM_UP, watch_s=0)
    api = psutil.Process(stage.stack.pids()["api"])
    before = api.memory_info().rss
    rss, connections, used, last_s = await _follow(stage, count, watch_s=watch_s)
    shape = stage.shape
    report.add(
        Line(
            name=f"memory of each of {count} open streams",
            shape=shape,
            value=(rss - before) / count / 1000,
            unit="kB",
            target=_STREAM_KB,
        ),
        Line(
            name="CPU of each open, silent stream",
            shape=shape,
            value=used.by_name["api"] / watch_s / count * 1000,
            unit="µs/s",
        ),
        Line(
            name=f"Redis connections of the API, {count} streams",
            shape=shape,
            value=connections,
            unit="",
        ),
        Line(name=f"last of {count} streams ended after", shape=shape, value=1000 * last_s),
    )
    busy = ", ".join(
        f"{name} {ms / watch_s / 10:.1f} %" for name, ms in used.by_name.items() if ms > 1
    )
    report.note(f"CPU of the processes with {count} silent streams open: {busy}.")


async def _follow(stage: Stage, count: int, *, watch_s: float) -> tuple[int, int, CpuTimes, float]:
    """Return the API's memory and Redis connections, the CPU used, and the time to the end."""
    gate, chats, turns = await stage.hold(_TURNS)
    followers = [
        Request(stage.api_port, f"/api/v1/turns/{turn.turn_id}/events", token=chat.token)
        for turn, chat in zip(turns, chats, strict=True)
        for _ in range(count // _TURNS)
    ]
    await stage.ground.client.open(followers)
    api = psutil.Process(stage.stack.pids()["api"])
    before = stage.stack.cpu()
    await asyncio.sleep(watch_s)
    used = stage.stack.cpu().since(before)
    rss, connections = api.memory_info().rss, _connections(stage, api)
    released = time.perf_counter()
    await stage.ground.release(gate)
    ended = await stage.ground.client.wait()
    await stage.settle()
    return rss, connections, used, max(sample.ended for sample in ended) - released


def _connections(stage: Stage, api: psutil.Process) -> int:
    redis = urlsplit(stage.stack.redis).port
    connections = api.net_connections("tcp")
    # An address is an empty tuple where a socket is not connected.
    return sum(int(made.raddr[-1:] == (redis,)) for made in connections)
