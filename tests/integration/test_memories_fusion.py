"""The statement that finds memories ranks as its definition says, whatever is stored."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Final
from uuid import UUID

import pytest

from schema.actors import Actor
from schema.ids import MemoryId, new_id
from schema.memories import CreateMemoryRequest, MemoryHit, SearchMemoriesRequest
from schema.tables.columns import utc_now
from services.memories.search import MemorySearch
from tests.fixtures.stack import Stack

# Stems of themselves, and no stop words.
VOCABULARY: Final = ("oak", "elm", "fig", "ash", "box", "yew", "fir", "bay")
DIMENSIONS: Final = 256


@dataclass(frozen=True, slots=True)
class Stored:
    """A memory as the test stores it."""

    id: UUID
    words: frozenset[str]
    vector: tuple[float, ...] | None
    importance: float
    updated_at: datetime


def some_memories(random: Random, now: datetime) -> list[Stored]:
    return [
        Stored(
            id=new_id(),
            words=frozenset(random.sample(VOCABULARY, random.randint(1, 4))),
            vector=a_vector(random) if random.random() < 0.8 else None,
            importance=random.choice((0.0, 0.5, 1.0)),
            updated_at=now - timedelta(days=random.choice((0, 30, 900))),
        )
        for _ in range(random.randint(1, 40))
    ]


def a_vector(random: Random) -> tuple[float, ...]:
    return tuple(random.gauss(0, 1) for _ in range(DIMENSIONS))


def cosine(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / math.hypot(*one) / math.hypot(*other)


def word_matches(memories: list[Stored], query: set[str]) -> dict[UUID, float]:
    having = Counter(word for memory in memories for word in memory.words)
    weights = {
        word: math.log(1 + (len(memories) - having[word] + 0.5) / (having[word] + 0.5))
        for word in query
    }
    return {
        memory.id: sum(weights[word] for word in query & memory.words) / sum(weights.values())
        for memory in memories
        if query & memory.words
    }


def scores(
    memories: list[Stored], query: set[str], vector: tuple[float, ...], now: datetime
) -> dict[UUID, float]:
    """Return the scores by the definition in decision and code, written the plain way."""
    matches = word_matches(memories, query)
    near = {m.id: cosine(m.vector, vector) for m in memories if m.vector is not None}
    fused: dict[UUID, float] = defaultdict(float)
    for ranking in (matches, near):
        # Python's UUIDs sort as Postgres's do.
        ordered = sorted(ranking, key=lambda row: (round(ranking[row], 9), row), reverse=True)
        for place, row in enumerate(ordered, start=1):
            fused[row] += 61 / (60 + place) / 2
    by_id = {memory.id: memory for memory in memories}
    return {
        row: score
        * (0.95 + 0.05 * by_id[row].importance)
        * (0.98 + 0.02 * 0.5 ** ((now - by_id[row].updated_at) / timedelta(days=90)))
        for row, score in fused.items()
    }


def differ_most(found: Mapping[MemoryId, float], expected: Mapping[UUID, float]) -> float:
    """Return the greatest difference; both must have the same rows."""
    assert {*found} == {*expected}
    return max((abs(found[row] - expected[row]) for row in found), default=0.0)


@pytest.mark.parametrize("seed", range(8))
async def test_places_are_fused_as_defined(stack: Stack, actor: Actor, seed: int) -> None:
    random, now = Random(seed), utc_now()
    memories, vector = some_memories(random, now), a_vector(random)
    vectors = [memory.vector for memory in memories]
    query = set(random.sample(VOCABULARY, 3))
    await stack.inspection.execute(
        "INSERT INTO memories (id, user_id, kind, content, importance, updated_at, embedder, "
        "embedding) SELECT id, $1, 'fact', content, importance, updated_at, "
        "CASE WHEN vector <> '' THEN $2 END, nullif(vector, '')::vector "
        "FROM unnest($3::uuid[], $4::text[], $5::real[], $6::timestamptz[], $7::text[]) "
        "AS given (id, content, importance, updated_at, vector)",
        actor.user_id,
        stack.foundation.embedder.name,
        [memory.id for memory in memories],
        [" ".join(sorted(memory.words)) for memory in memories],
        [memory.importance for memory in memories],
        [memory.updated_at for memory in memories],
        ["" if held is None else str([*held]) for held in vectors],
    )
    search = MemorySearch(stack.foundation.database, stack.foundation.embedder)

    hits = await search.for_prompt(actor, " ".join(query), vector, limit=100)

    expected = scores(memories, query, vector, now)
    assert differ_most({hit.id: hit.score for hit in hits}, expected) < 1e-4
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert all(0 < hit.score <= 1 for hit in hits)
    matches = {hit.id: hit.word_match for hit in hits if hit.word_match}
    assert differ_most(matches, word_matches(memories, query)) < 1e-6


async def test_a_score_is_never_above_one_nor_a_query_of_signs_an_error(
    stack: Stack, actor: Actor
) -> None:
    store, search = stack.services.memories.store, stack.services.memories.search
    signs = CreateMemoryRequest(content="& | ! ( ) : * ' \\ a", importance=1)
    await store.create(actor, signs, key=None)

    found: list[MemoryHit] = []
    for query in ("& | ! ( ) : * ' \\ a", "!!!", "the", "\\'", "a:*", "<->"):
        found += await search.search(actor, SearchMemoriesRequest(query=query))

    assert len(found) == 6
    assert all(0 < hit.score <= 1 for hit in found)
