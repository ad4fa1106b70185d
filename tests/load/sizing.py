"""Measures what docs/sizing.md counts with: what turns, streams and reads need of each process.

CPU by process, memory, rows and bytes in Postgres, keys in Valkey, and histories in Temporal, for a
short turn, one with a tool call, and one that streams for seconds. Moderate load: machines are
sized to be half idle.
"""

import asyncio
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final
from uuid import UUID

import asyncpg
import psutil
from redis.asyncio import Redis
from temporalio.client import Client

from schema.ids import TurnId, turn_workflow_id
from services.events.writer import fence_key, stream_key
from tests.load.client import Request, Sample
from tests.load.machine import megabytes
from tests.load.model import Play
from tests.load.report import Line, Report
from tests.load.stacks import PROCESSES
from tests.load.stage import Ground, Stage, open_stage

_SHORT: Final = Play(first_s=0.05, tokens=10, between_s=0.01)
_READS: Final = 10
_READERS: Final = 8


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of turn: how the model answers it, and how many run at a time."""

    name: str
    play: Play
    count: int
    at_a_time: int


@dataclass(frozen=True, slots=True)
class SizingEffort:
    """`share` of the full numbers of turns; `idle_s` is how long nothing happens."""

    share: float
    idle_s: float
    held: int


def _kinds(share: float) -> tuple[Kind, ...]:
    return (
        Kind("short", _SHORT, int(400 * share), 8),
        Kind("with a tool call", replace(_SHORT, tool="calculator"), int(160 * share), 8),
        # 400 tokens at 50 a second.
        Kind("of 8 s", Play(first_s=0.2, tokens=400, between_s=0.02), int(96 * share), 32),
    )


async def measure_sizing(
    folder: Path, ground: Ground, report: Report, effort: SizingEffort
) -> None:
    """Measure without learning from turns, then what learning adds; chats have titles."""
    kinds = _kinds(effort.share)
    stage_of = partial(open_stage, folder, ground, as_in_production=True, title="Measured")
    async with stage_of(EVERTURN_MEMORY_EXTRACTION="false") as stage:
        await _measure_idle(stage, report, idle_s=effort.idle_s)
        for kind in kinds:
            await _measure_turns(stage, report, kind)
        await _measure_reads(stage, report)
        await _measure_held(stage, report, count=effort.held)
    async with stage_of() as stage:
        learned = replace(kinds[0], name="short, with learning")
        await _measure_turns(stage, report, learned)


async def _measure_idle(stage: Stage, report: Report, *, idle_s: float) -> None:
    """Measure processes that have nothing to do, after the first turns have warmed them up."""
    await stage.batch(_SHORT, 64, concurrency=8)
    before = stage.stack.cpu()
    await asyncio.sleep(idle_s)
    used = stage.stack.cpu().since(before)
    memory = _memory(stage)
    for name in PROCESSES:
        idle = used.by_name[name] / idle_s / 10
        report.add(Line(name="CPU of a core, idle", shape=name, value=idle, unit="%"))
        report.add(Line(name="memory after 64 turns", shape=name, value=memory[name], unit="MB"))


async def _measure_turns(stage: Stage, report: Report, kind: Kind) -> None:
    """Measure everything that one kind of turn leaves and uses."""
    await stage.batch(kind.play, kind.at_a_time, concurrency=kind.at_a_time)
    chats = await stage.make_chats(kind.count)
    async with Redis.from_url(stage.stack.redis) as redis:
        connection = await asyncpg.connect(stage.stack.superuser)
        try:
            stored, disk = await _stored(connection), _disk_of_temporal(stage)
            commands, cpu = await _commands(redis), stage.stack.cpu()
            turns = await stage.ground.client.run(
                [stage.message(chat, kind.play) for chat in chats], concurrency=kind.at_a_time
            )
            await stage.settle()
            used = stage.stack.cpu().since(cpu).per(kind.count)
            commands = (await _commands(redis) - commands) / kind.count
            _report_stored(report, kind, stored, await _stored(connection))
            kept, disk = await _kept(redis, turns), _disk_of_temporal(stage) - disk
        finally:
            await connection.close()
    for name in PROCESSES:
        line = Line(name=f"CPU of a turn {kind.name}", shape=name, value=used.by_name[name])
        report.add(line)
    total = used.total
    report.add(
        Line(name=f"CPU of a turn {kind.name}", shape="all", value=total),
        Line(name=f"commands of a turn {kind.name}", shape="valkey", value=commands, unit=""),
        Line(name=f"kept of a turn {kind.name}", shape="valkey", value=kept / 1000, unit="kB"),
    )
    await _report_history(stage.temporal, report, kind.name, turn_workflow_id(_id(turns[-1])))
    name = f"disk, in SQLite, of a turn {kind.name}"
    report.add(Line(name=name, shape="temporal", value=disk / kind.count / 1000, unit="kB"))


def _report_stored(
    report: Report, kind: Kind, before: Mapping[str, float], after: Mapping[str, float]
) -> None:
    grown = {name: (after[name] - before.get(name, 0)) / kind.count for name in after}
    of_turn = f"of a turn {kind.name}"
    report.add(
        Line(name=f"rows {of_turn}", shape="postgres", value=grown.pop("rows"), unit=""),
        Line(
            name=f"tables and indexes {of_turn}",
            shape="postgres",
            value=grown.pop("bytes") / 1000,
            unit="kB",
        ),
        Line(name=f"WAL {of_turn}", shape="postgres", value=grown.pop("wal") / 1000, unit="kB"),
        Line(
            name=f"transactions {of_turn}",
            shape="postgres",
            value=grown.pop("transactions"),
            unit="",
        ),
    )
    tables = sorted(grown.items(), key=lambda pair: -pair[1])
    listed = ", ".join(f"{name} {grew / 1000:.2f}" for name, grew in tables if grew >= 10)
    report.note(f"Tables with their indexes {of_turn}, in kB: {listed}.")


async def _report_history(client: Client, report: Report, kind: str, workflow_id: str) -> None:
    handle = client.get_workflow_handle(workflow_id)
    await handle.result()
    described = (await handle.describe()).raw_description.workflow_execution_info
    for what, value, unit in (
        ("events", float(described.history_length), ""),
        ("state transitions", float(described.state_transition_count), ""),
        ("history", described.history_size_bytes / 1000, "kB"),
    ):
        name = f"{what} of a turn {kind}"
        report.add(Line(name=name, shape="temporal", value=value, unit=unit))


async def _measure_reads(stage: Stage, report: Report) -> None:
    """Measure the CPU of a read; half of the reads are lists."""
    chats = await stage.make_chats(_READERS)
    turns = await stage.ground.client.run(
        [stage.message(chat, _SHORT) for chat in chats], concurrency=4
    )
    requests = [
        Request(stage.api_port, f"/api/v1/{path}", token=chat.token)
        for _ in range(_READS * _READERS)
        for chat, turn in zip(chats, turns, strict=True)
        for path in ("chats", f"chats/{chat.id}/messages", f"turns/{turn.turn_id}", "memories")
    ]
    await stage.ground.client.run(requests[:100], concurrency=_READERS)
    before = stage.stack.cpu()
    await stage.ground.client.run(requests, concurrency=_READERS)
    used = stage.stack.cpu().since(before).per(len(requests)).by_name
    for name in ("api", "postgres", "valkey"):
        report.add(Line(name="CPU of a read", shape=name, value=1000 * used[name], unit="µs"))


async def _measure_held(stage: Stage, report: Report, *, count: int) -> None:
    """Measure the memory that running turns hold, each with one open stream."""
    # What the first ones left is taken again by as many of the others.
    warm = count // 4
    await _hold(stage, warm)
    before, held = _memory(stage), await _hold(stage, count)
    for name in ("api", "worker-turns", "valkey"):
        grown = 1000 * (held[name] - before[name]) / (count - warm)
        report.add(Line(name="memory of a running turn", shape=name, value=grown, unit="kB"))


async def _hold(stage: Stage, count: int) -> Mapping[str, float]:
    """Return the memory of the processes while turns wait for more text."""
    gate, _, _ = await stage.hold(count)
    memory = _memory(stage)
    await stage.ground.release(gate)
    await stage.ground.client.wait()
    return memory


def _memory(stage: Stage) -> Mapping[str, float]:
    """Return megabytes: as a container counts them, which shares no code with the next one.

    Postgres shares its buffers among its processes: there each page counts once.
    """
    pids = stage.stack.pids()
    running = {name: psutil.Process(pids[name]) for name in PROCESSES}
    return {
        name: megabytes(process) if name == "postgres" else process.memory_info().rss / 1e6
        for name, process in running.items()
    }


async def _stored(connection: asyncpg.Connection) -> Mapping[str, float]:
    """Return the bytes of each table with its indexes, and sums over all."""
    await connection.execute("SELECT pg_stat_force_next_flush()")
    tables = await connection.fetch(
        "SELECT tablename AS name, pg_total_relation_size(quote_ident(tablename)::regclass) AS "
        "bytes FROM pg_tables WHERE schemaname = 'public'"
    )
    counting = " + ".join(f'(SELECT count(*) FROM "{table["name"]}")' for table in tables)
    (sums,) = await connection.fetch(
        f"SELECT {counting} AS rows, pg_current_wal_lsn() - '0/0'::pg_lsn AS wal, "
        "(SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()) "
        "AS transactions"
    )
    sizes = {table["name"]: float(table["bytes"]) for table in tables}
    return {
        **sizes,
        **{name: float(value) for name, value in sums.items()},
        "bytes": sum(sizes.values()),
    }


def _disk_of_temporal(stage: Stage) -> float:
    """Return the size of the development server's database, with what is still in its WAL."""
    (file,) = stage.stack.directory.glob("temporal/*.db")
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        ((pages,),) = database.execute("PRAGMA page_count")
        ((page_bytes,),) = database.execute("PRAGMA page_size")
    return float(pages * page_bytes)


async def _commands(redis: Redis) -> float:
    return float((await redis.info("stats"))["total_commands_processed"])


async def _kept(redis: Redis, turns: list[Sample]) -> float:
    """Return how many bytes Valkey keeps of a turn that has ended."""
    kept = 0
    for turn in turns:
        for key in (stream_key(_id(turn)), fence_key(_id(turn))):
            kept += await redis.memory_usage(key, samples=0) or 0
    return kept / len(turns)


def _id(turn: Sample) -> TurnId:
    return TurnId(UUID(turn.turn_id))
