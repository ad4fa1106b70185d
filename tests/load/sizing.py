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
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import psutil
from redis.asyncio import Redis
from temporalio.client import Client

from schema.ids import TurnId, turn_workflow_id
from services.events.writer import fence_key, stream_key
from tests.load.report import Line, Report
from tests.load.samples import Request, Sample
from tests.load.stage import MODEL, PROCESSES, Shape, Stage, open_stage
from tests.load.watching import megabytes
from tests.running_everturn.waiting import eventually

_REPEAT: Final = 1_000_000
_OURS: Final = tuple(name for name in PROCESSES if name != MODEL)
_READS: Final = 10
_READERS: Final = 8
_SETTLED_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of turn: its message, how the model answers, and how many run at a time."""

    name: str
    content: str
    script: Mapping[str, Any]
    count: int
    at_a_time: int


@dataclass(frozen=True, slots=True)
class SizingEffort:
    """`share` of the full numbers of turns; `idle_s` is how long nothing happens."""

    share: float
    idle_s: float
    held: int


def _kinds(share: float) -> tuple[Kind, ...]:
    pieces = [f"piece {number} " for number in range(10)]
    short = {"delay_to_first_s": 0.05, "delay_between_s": 0.01}
    many = [f"word{number % 10} " for number in range(400)]
    return (
        Kind("short", "Say something plain.", {**short, "pieces": pieces}, int(400 * share), 8),
        Kind("with a tool call", "What is 6 * 7?", short, int(160 * share), 8),
        # 400 tokens at 50 a second.
        Kind(
            "of 8 s",
            "Say something long.",
            {"pieces": many, "delay_to_first_s": 0.2, "delay_between_s": 0.02},
            int(96 * share),
            32,
        ),
    )


async def measure_sizing(directory: Path, report: Report, effort: SizingEffort) -> None:
    """Measure without learning from turns, then what learning adds."""
    kinds = _kinds(effort.share)
    async with open_stage(directory, Shape.APART, EVERTURN_MEMORY_EXTRACTION="false") as stage:
        await _measure_idle(stage, report, idle_s=effort.idle_s)
        for kind in kinds:
            await _measure_turns(stage, report, kind)
        await _measure_reads(stage, report)
        await _measure_held(stage, report, count=effort.held)
    async with open_stage(directory, Shape.APART, EVERTURN_MEMORY_EXTRACTION="true") as stage:
        learned = replace(kinds[0], name="short, with learning")
        await _measure_turns(stage, report, learned)


async def _measure_idle(stage: Stage, report: Report, *, idle_s: float) -> None:
    """Measure processes that have nothing to do, after the first turns have warmed them up."""
    await stage.script(text="Warm.", repeat=_REPEAT)
    await stage.turns("Warm up.", 64, concurrency=8)
    before = stage.cpu()
    await asyncio.sleep(idle_s)
    used = stage.cpu().since(before)
    memory = _memory(stage)
    for name in _OURS:
        idle = used.by_name[name] / idle_s / 10
        report.add(Line(name="CPU of a core, idle", shape=name, value=idle, unit="%"))
        report.add(Line(name="memory after 64 turns", shape=name, value=memory[name], unit="MB"))


async def _measure_turns(stage: Stage, report: Report, kind: Kind) -> None:
    """Measure everything that one kind of turn leaves and uses."""
    await stage.script(**kind.script, repeat=_REPEAT)
    await stage.turns(kind.content, kind.at_a_time, concurrency=kind.at_a_time)
    client = await Client.connect(stage.stack.addresses.temporal)
    chats = await stage.make_chats(kind.count)
    async with Redis.from_url(stage.stack.addresses.redis) as redis:
        connection = await asyncpg.connect(stage.stack.migration_database)
        try:
            await _settled(connection)
            stored, disk = await _stored(connection), _disk_of_temporal(stage)
            commands, cpu = await _commands(redis), stage.cpu()
            turns = await stage.client.run(
                [stage.message(chat, kind.content) for chat in chats], concurrency=kind.at_a_time
            )
            await _settled(connection)
            used = stage.cpu().since(cpu).per(kind.count)
            commands = (await _commands(redis) - commands) / kind.count
            _report_stored(report, kind, stored, await _stored(connection))
            kept, disk = await _kept(redis, turns), _disk_of_temporal(stage) - disk
        finally:
            await connection.close()
    for name in _OURS:
        line = Line(name=f"CPU of a turn {kind.name}", shape=name, value=used.by_name[name])
        report.add(line)
    total = used.total(without=(MODEL,))
    report.add(
        Line(name=f"CPU of a turn {kind.name}", shape="all", value=total),
        Line(name=f"commands of a turn {kind.name}", shape="valkey", value=commands, unit=""),
        Line(name=f"kept of a turn {kind.name}", shape="valkey", value=kept / 1000, unit="kB"),
    )
    await _report_history(client, report, kind.name, turn_workflow_id(_id(turns[-1])))
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
    turns = await stage.client.run(
        [stage.message(chat, "Say something plain.") for chat in chats], concurrency=4
    )
    requests = [
        Request(stage.api_port, f"/api/v1/{path}", token=chat.token)
        for _ in range(_READS * _READERS)
        for chat, turn in zip(chats, turns, strict=True)
        for path in ("chats", f"chats/{chat.id}/messages", f"turns/{turn.turn_id}", "memories")
    ]
    await stage.client.run(requests[:100], concurrency=_READERS)
    before = stage.cpu()
    await stage.client.run(requests, concurrency=_READERS)
    used = stage.cpu().since(before).per(len(requests)).by_name
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
    gate = uuid4().hex
    await stage.script(text="Held here.", hold=gate, hold_after=1, repeat=count)
    chats = await stage.make_chats(count)
    await stage.client.open([stage.message(chat, "Hold on.") for chat in chats])
    memory = _memory(stage)
    await stage.release(gate)
    await stage.client.wait()
    return memory


def _memory(stage: Stage) -> Mapping[str, float]:
    """Return megabytes: as a container counts them, which shares no code with the next one.

    Postgres shares its buffers among its processes: there each page counts once.
    """
    pids = {name: stage.stack.pid(name) for name in _OURS}
    running = {name: psutil.Process(pid) for name, pid in pids.items() if pid is not None}
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
    (file,) = stage.stack.directory.path.glob("temporal/*.db")
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


async def _settled(connection: asyncpg.Connection) -> None:
    """Return when nothing is due after earlier turns any more."""

    async def due() -> int:
        return int(await connection.fetchval("SELECT count(*) FROM due_works"))

    await eventually(due, lambda count: count == 0, within_s=_SETTLED_S)


def _id(turn: Sample) -> TurnId:
    return TurnId(UUID(turn.turn_id))
