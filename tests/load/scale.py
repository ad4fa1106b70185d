"""Measures requests with JSON responses: alone, and on a database of real size; and the recall."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from uuid import UUID

import asyncpg
import numpy as np

from api.routing import API_PREFIX
from services.database.connections import SERVER_SETTINGS
from tests.load.client import Request, spread
from tests.load.comparison import Comparison, Effort, percentile
from tests.load.model import Play
from tests.load.population import ADMIN_EMAIL, DIMENSIONS, EMBEDDER, PASSWORD, email_of
from tests.load.report import BASE, OURS, Figure, Line, Report
from tests.load.stage import Batch, Stage
from tests.load.turns import cpu_per_turn
from workers.openapi import openapi_document

_CLIENTS: Final = 20
_WARM_UP: Final = 200
_TARGET_MS: Final = 100
_API_MS: Final = 500
_NEIGHBOURS: Final = 10
_QUESTIONS: Final = 50
_LEAST_RECALL: Final = 0.95

# Streams and whole exports are not reads with a target of a tenth of a second; the other routes
# ask for resources that this database does not contain.
_LEFT_OUT: Final = (
    *("/health/", "/events", "/export", "/tool-calls/", "/files/", "/shared/"),
    *("/mcp-servers/{name}", "/workflow-tools/{name}", "/prompts/{prompt_id}", "/{key_id}"),
)
FURTHER: Final = (
    "/chats?q=bace",
    "/chats?q=nowhere+%E6%9D%B1%E4%BA%AC",
    "/chats?pinned=true&tag=work",
    "/chats/{chat_id}/messages?limit=50",
    "/chats/{chat_id}/messages?limit=50&sort=-createdAt&siblings=true",
    "/chats/{chat_id}/turns?limit=50",
    "/turns?status=running&status=awaiting_approval",
    "/admin/feedback?rating=down&limit=50",
    "/admin/feedback?model=claude-haiku-5-5",
    "/chats?sort=title",
    "/chats?sort=-updatedAt&limit=100",
    "/memories?sort=-importance",
    "/memories?search=bace",
    "/knowledge?scope=published&search=bace",
    "/admin/users?search=person+77",
    "/admin/users?sort=email",
    "/admin/turns?status=completed&model=claude-haiku-5-5",
)
_SEARCHES: Final = ("/memories/search", "/knowledge/search")


@dataclass(frozen=True, slots=True)
class Caller:
    """A signed-in user, and the ids of resources that they can read."""

    token: str
    things: Mapping[str, object]


async def measure_api(
    stages: Sequence[Stage], report: Report, *, count: int, effort: Effort
) -> None:
    """Measure how long 20 clients wait that ask without a pause, on an almost empty database."""
    requests = {
        side: await _api_requests(stage, count)
        for side, stage in zip((OURS, BASE), stages, strict=False)
    }
    for name in requests[OURS]:
        waited, cpu = _api_figures(name)
        sides = {
            side: partial(_read_batch, stage, requests[side][name])
            for side, stage in zip((OURS, BASE), stages, strict=False)
        }
        for read in sides.values():
            await read()
        rounds = await Comparison(sides, effort).run(waited.is_narrow)
        report.compare(rounds, waited, cpu, shape=stages[0].shape)


def _api_figures(name: str) -> tuple[Figure, Figure]:
    return (
        Figure(
            name=f"{name}, {_CLIENTS} clients, p95",
            of=lambda batches: percentile(
                (sample.whole_ms for batch in batches for sample in batch.samples), 0.95
            ),
            target=_API_MS,
            share=0.15,
        ),
        Figure(
            name=f"CPU of {name}",
            of=lambda batches: 1000 * cpu_per_turn(batches, lambda batch: batch.cpu),
            unit="µs",
        ),
    )


async def _read_batch(stage: Stage, requests: Sequence[Request]) -> Batch:
    before = stage.stack.cpu()
    samples = await stage.ground.client.run(requests, concurrency=_CLIENTS)
    used = stage.stack.cpu().since(before)
    return Batch(samples, used, used)


async def _api_requests(stage: Stage, count: int) -> dict[str, list[Request]]:
    """Return the requests by name; those of one name read what belongs to several users."""
    chats = await stage.make_chats(_CLIENTS)
    messages = [stage.message(chat, Play(first_s=0.0, tokens=2)) for chat in chats]
    answered = await stage.ground.client.run(messages, concurrency=4)
    await stage.settle()
    reads: dict[str, list[Request]] = {"GET /chats": [], "GET messages": [], "GET turn": []}
    for number in range(count):
        chat, turn = chats[number % _CLIENTS], answered[number % _CLIENTS]
        for name, path in (
            ("GET /chats", "chats"),
            ("GET messages", f"chats/{chat.id}/messages"),
            ("GET turn", f"turns/{turn.turn_id}"),
        ):
            request = Request(stage.api_port, f"{API_PREFIX}/{path}", token=chat.token)
            reads[name].append(request)
    return {**reads, "POST /chats": stage.chat_requests(count)}


async def measure_scale(stage: Stage, report: Report, *, count: int) -> None:
    """Measure how long 20 clients wait for each read, asking without a pause."""
    async with _superuser(stage) as connection:
        users = [await _caller(stage, connection, email_of(n)) for n in range(_CLIENTS)]
        admin = await _caller(stage, connection, ADMIN_EMAIL, things_of=users[1])
        words = await connection.fetchval("SELECT content FROM passages LIMIT 1")
        waited: dict[str, float] = {}
        for name, requests in _requests(
            stage.api_port, users, admin, words=words, count=count
        ).items():
            # Connections to the database are opened, and its plans made, within the first requests.
            await stage.ground.client.run(requests[:_WARM_UP], concurrency=_CLIENTS)
            samples = await stage.ground.client.run(requests, concurrency=_CLIENTS)
            waited[name] = spread(sample.whole_ms for sample in samples).p95
        _report_reads(report, waited)
        await _measure_recall(connection, report)


def _report_reads(report: Report, waited: Mapping[str, float]) -> None:
    """Show the searches, the slowest of the other reads, and whatever misses the target."""
    slowest = max((name for name in waited if not name.startswith("POST")), key=waited.__getitem__)
    for name, p95 in waited.items():
        if name.startswith("POST") or name == slowest or p95 > _TARGET_MS:
            label = f"{name}, {_CLIENTS} clients, p95"
            report.add(Line(name=label, shape="a million messages", value=p95, target=_TARGET_MS))
    ordered = sorted(waited.items(), key=lambda pair: -pair[1])
    listed = ", ".join(f"{name} {p95:.0f}" for name, p95 in ordered)
    report.note(f"Reads on a million messages, {_CLIENTS} clients, p95 in ms: {listed}.")


def _requests(
    port: int, users: Sequence[Caller], admin: Caller, *, words: str, count: int
) -> dict[str, list[Request]]:
    """Return the requests of each read, of one user after another."""
    found: dict[str, list[Request]] = {}
    for path in (*documented_reads(), *FURTHER):
        callers = [admin] if path.startswith("/admin/") else users
        found[f"GET {path}"] = [
            Request(port, API_PREFIX + path.format(**caller.things), token=caller.token)
            for caller, _ in zip(_cycled(callers, count), range(count), strict=True)
        ]
    for path in _SEARCHES:
        texts = words.split()
        found[f"POST {path}"] = [
            Request(
                port,
                API_PREFIX + path,
                "POST",
                caller.token,
                {"query": " ".join(texts[number % 60 : number % 60 + 3])},
            )
            for number, caller in enumerate(_cycled(users, count))
        ]
    return found


def _cycled(callers: Sequence[Caller], count: int) -> list[Caller]:
    return [callers[number % len(callers)] for number in range(count)]


def documented_reads() -> list[str]:
    """Return the paths of the reads that are measured, as OpenAPI has them."""
    paths = json.loads(openapi_document())["paths"]
    reads = [
        path.removeprefix(API_PREFIX)
        for path, of in paths.items()
        if "get" in of and path.startswith(API_PREFIX)
    ]
    return [path for path in reads if not any(part in path for part in _LEFT_OUT)]


THINGS_OF_USER: Final = {
    "chat_id": "SELECT id FROM chats WHERE user_id = $1 ORDER BY id LIMIT 1",
    "message_id": "SELECT id FROM messages WHERE user_id = $1 AND role = 'assistant' LIMIT 1",
    "turn_id": "SELECT id FROM turns WHERE user_id = $1 LIMIT 1",
    "memory_id": "SELECT id FROM memories WHERE user_id = $1 LIMIT 1",
    "document_id": "SELECT id FROM documents WHERE published_version = 1 LIMIT 1",
    "plan_id": "SELECT id FROM plans LIMIT 1",
    "user_id": "SELECT $1::uuid",
}


async def _caller(
    stage: Stage, connection: asyncpg.Connection, email: str, *, things_of: Caller | None = None
) -> Caller:
    body = {"email": email, "password": PASSWORD}
    login = Request(stage.api_port, f"{API_PREFIX}/auth/login", "POST", body=body)
    (sample,) = await stage.ground.client.run([login], concurrency=1)
    user_id = UUID(sample.data["user"]["id"])
    things: dict[str, object] = {
        name: await connection.fetchval(query, *([user_id] if "$1" in query else []))
        for name, query in THINGS_OF_USER.items()
    }
    further = {"name": "calculator", "number": 1}
    return Caller(
        sample.data["accessToken"], {**(things_of.things if things_of else things), **further}
    )


async def _measure_recall(connection: asyncpg.Connection, report: Report) -> None:
    """Compare the index's results with the exact ones, for queries near passages."""
    rows = await connection.fetch(
        "SELECT embedding::text AS vector FROM passages WHERE published ORDER BY id LIMIT $1",
        _QUESTIONS,
    )
    generator = np.random.default_rng(1)
    shares: list[float] = []
    for row in rows:
        vector = np.array(json.loads(row["vector"])) + 0.03 * generator.normal(size=DIMENSIONS)
        question = json.dumps([round(float(value), 5) for value in vector])
        exact = await _nearest(connection, question, exactly=True)
        found = await _nearest(connection, question, exactly=False)
        shares.append(len(exact & found) / _NEIGHBOURS)
    report.add(
        Line(
            name=f"recall at {_NEIGHBOURS} of vector search, published passages",
            shape="a million messages",
            value=100 * sum(shares) / len(shares),
            unit="%",
            target=100 * _LEAST_RECALL,
            least=True,
        )
    )


async def _nearest(connection: asyncpg.Connection, question: str, *, exactly: bool) -> set[UUID]:
    """Return the nearest passages, by the same settings and conditions as the search's own."""
    async with connection.transaction():
        if exactly:
            await connection.execute("SET LOCAL enable_indexscan = off")
        rows: list[Any] = await connection.fetch(
            f"SELECT id FROM passages WHERE published AND vector_dims(embedding) = {DIMENSIONS} "
            f"AND embedder = '{EMBEDDER}' ORDER BY embedding::vector({DIMENSIONS}) <=> "
            f"$1::text::vector({DIMENSIONS}) LIMIT {_NEIGHBOURS}",
            question,
        )
    return {row["id"] for row in rows}


@asynccontextmanager
async def _superuser(stage: Stage) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(stage.stack.superuser, server_settings=SERVER_SETTINGS)
    try:
        yield connection
    finally:
        await connection.close()
