"""Watches a stack through a soak: memory, connections, rows, and what Valkey holds.

All of it must be flat once the first third is over, by which time caches are warm and the streams
of the first turns have expired. After 3,600 turns, 10 kB that a turn leaves in a process show.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final, TypeAlias

import asyncpg
import psutil
from redis.asyncio import Redis

from tests.load.machine import megabytes
from tests.load.report import Line, Report
from tests.load.stacks import PROCESSES, Stack

_EVERY_S: Final = 2.0
_LEAST_SAMPLES: Final = 100
"""A third of it is longer than a minute: as long as Valkey keeps a turn that has ended."""

_WARM: Final = 0.35
_WINDOW: Final = 0.15
_MOST_GROWN: Final = 110
"""Units: percent of what it was after the first third."""

_FLAT: Final = (
    *("memory of api", "memory of worker-turns", "memory of worker-tools", "memory of valkey"),
    *("connections of api", "connections of worker-turns", "connections of worker-tools"),
    *("connections of postgres", "keys in valkey", "bytes in valkey", "unfinished turns"),
    "rows of a turn",
)
_BY_CHANCE: Final = {
    **dict.fromkeys((name for name in _FLAT if name.startswith("connections")), 4.0),
    "keys in valkey": 100.0,
    "unfinished turns": 16.0,
    "rows of a turn": 1.0,
}
"""By how much small numbers may grow, whatever the percentage."""


Watched: TypeAlias = Mapping[str, float]
"""One sample: numbers by name, and `at` in seconds since the epoch. Units: megabytes of memory."""


async def watch(stack: Stack, *, until: asyncio.Task[Any], written: Path) -> list[Watched]:
    """Sample the stack until the task ends; each sample is also a line of JSON in the file."""
    samples: list[Watched] = []
    redis = Redis.from_url(stack.redis)
    connection = await asyncpg.connect(stack.superuser)
    try:
        count = await _counting(connection)
        with written.open("w", buffering=1) as file:
            while not until.done():
                samples.append(await _sample(stack, redis, connection, count=count))
                file.write(json.dumps(samples[-1]) + "\n")
                await asyncio.wait({until}, timeout=_EVERY_S)
    finally:
        await connection.close()
        await redis.aclose()
    return samples


def judge_growth(samples: Sequence[Watched], report: Report) -> None:
    """Add a line for each number that must be flat, and a note on all of them."""
    if len(samples) < _LEAST_SAMPLES:
        report.note(
            f"soak: {len(samples)} samples are too few to say what grows; "
            f"it takes {_LEAST_SAMPLES * _EVERY_S:.0f} s."
        )
        return
    grown = {name: _growth(samples, name) for name in samples[-1] if name != "at"}
    grown["rows of a turn"] = _rows_of_a_turn(samples)
    for name in _FLAT:
        before, after = grown[name]
        is_chance = after - before <= _BY_CHANCE.get(name, 0)
        report.add(
            Line(
                name=f"{name} at the end, for that after a third",
                shape="soak",
                value=100.0 if is_chance else 100 * after / before,
                unit="%",
                target=_MOST_GROWN,
            )
        )
    listed = ", ".join(f"{name} {a:.4g} → {b:.4g}" for name, (a, b) in sorted(grown.items()))
    report.note(f"soak, after a third and at the end (memory in MB): {listed}.")


def _windows(samples: Sequence[Watched]) -> tuple[Sequence[Watched], Sequence[Watched]]:
    """Return a window behind the warm-up, and one at the end, before locust's users leave."""
    begin, width, end = int(_WARM * len(samples)), int(_WINDOW * len(samples)), len(samples) - 2
    return samples[begin : begin + width], samples[end - width : end]


def _growth(samples: Sequence[Watched], name: str) -> tuple[float, float]:
    before, after = (median(each[name] for each in window) for window in _windows(samples))
    return before, after


def _rows_of_a_turn(samples: Sequence[Watched]) -> tuple[float, float]:
    before, after = (
        (window[-1]["rows"] - window[0]["rows"]) / (window[-1]["turns"] - window[0]["turns"])
        for window in _windows(samples)
    )
    return before, after


async def _sample(
    stack: Stack, redis: Redis, connection: asyncpg.Connection, *, count: str
) -> Watched:
    memory, connections = await asyncio.to_thread(_processes, stack)
    stored = await redis.info("memory")
    (counted,) = await connection.fetch(count)
    return {
        "at": time.time(),
        **{f"memory of {name}": megabytes for name, megabytes in memory.items()},
        **{f"connections of {name}": number for name, number in connections.items()},
        "keys in valkey": float(await redis.dbsize()),
        "bytes in valkey": float(stored["used_memory"]),
        **{name: float(number) for name, number in counted.items()},
    }


def _processes(stack: Stack) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """Return the memory of each process with its children, and the connections of ours."""
    pids = stack.pids()
    running = {name: psutil.Process(pids[name]) for name in PROCESSES if name in pids}
    return (
        {name: megabytes(process) for name, process in running.items()},
        {
            name: float(len(process.net_connections("tcp")))
            for name, process in running.items()
            if name == "api" or name.startswith("worker-")
        },
    )


async def _counting(connection: asyncpg.Connection) -> str:
    """Return the query that counts the rows of all tables."""
    tables = await connection.fetch(
        "SELECT quote_ident(tablename) AS name FROM pg_tables WHERE schemaname = 'public'"
    )
    rows = " + ".join(f"(SELECT count(*) FROM {table['name']})" for table in tables)
    return (
        f"SELECT {rows} AS rows, (SELECT count(*) FROM turns) AS turns, "
        '(SELECT count(*) FROM turns WHERE finished_at IS NULL) AS "unfinished turns", '
        "(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') "
        'AS "connections of postgres"'
    )
