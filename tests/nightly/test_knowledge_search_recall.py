"""The recall of the approximate index, also where few of many rows count."""

import math
from collections.abc import Sequence
from random import Random
from typing import Final
from uuid import UUID, uuid4

import pytest

from schema.actors import acting_user
from schema.ids import UserId
from services.embeddings import make_embedder
from services.knowledge.search import KnowledgeSearch, search_statement
from tests.fixtures.api_user import ApiUser
from tests.fixtures.passages import NewPassage, add_document, publish
from tests.fixtures.stack import Stack

DIMENSIONS: Final = 256
MANY: Final = 4_000
FEW: Final = 30
QUERIES: Final = 20
TEN: Final = 10


class Space:
    """Vectors in clusters, the same in every run; any two are near enough to be found."""

    def __init__(self) -> None:
        self._random = Random(20)
        middle = self._near([0.0] * DIMENSIONS, 1.0)
        self._centres = [self._near(middle, 0.04) for _ in range(50)]

    def vector(self) -> list[float]:
        return self._near(self._random.choice(self._centres), 0.05)

    def _near(self, centre: Sequence[float], spread: float) -> list[float]:
        moved = [value + self._random.gauss(0, spread) for value in centre]
        length = math.hypot(*moved)
        return [round(value / length, 5) for value in moved]


class Library:
    """The passages of these tests: many of one embedder, a few of another, a few drafts."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.space = Space()
        self.many, self.few = f"many-{uuid4().hex}", f"few-{uuid4().hex}"

    async def fill(self) -> None:
        owner, self.drafter = await self.stack.sign_up(), await self.stack.sign_up()
        many = await self._add(owner, MANY, self._name(self.many))
        few = await self._add(owner, FEW, self._name(self.few))
        await publish(self.stack.inspection, many, 1)
        await publish(self.stack.inspection, few, 1)
        # Another user's, which must not be found.
        await self._add(owner, MANY // 10, self._name(self.many))
        self.draft = await self._add(self.drafter, FEW, self._name(self.many))
        await self.stack.inspection.execute("ANALYZE passages")

    async def recall(self, model: str, *, drafts: bool = False) -> float:
        """Return which part of the ten that are nearest a search finds."""
        found = 0
        for _ in range(QUERIES):
            query = self.space.vector()
            expected = await self._exactly(query, self._name(model), drafts=drafts)
            hits = await self.search_of(model).relevant(
                acting_user(UserId(UUID(self.drafter.id))), "?", query, limit=TEN
            )
            found += len(expected & {hit.content for hit in hits})
        return found / (QUERIES * TEN)

    async def _exactly(self, query: Sequence[float], embedder: str, *, drafts: bool) -> set[str]:
        rows = await self.stack.inspection.rows(
            "SELECT content FROM passages WHERE embedder = $2 AND (published OR document_id = $3) "
            "ORDER BY embedding <=> $1::text::vector LIMIT 10",
            str(list(query)),
            embedder,
            self.draft if drafts else None,
        )
        return {row["content"] for row in rows}

    async def _add(self, owner: ApiUser, count: int, embedder: str) -> UUID:
        made = [NewPassage(uuid4().hex, self.space.vector(), embedder) for _ in range(count)]
        return await add_document(self.stack.inspection, owner.id, *made)

    def search_of(self, model: str) -> KnowledgeSearch:
        embedder = make_embedder(
            "openai", model=model, base_url="http://127.0.0.1:9", dimensions=DIMENSIONS
        )
        return KnowledgeSearch(self.stack.foundation.database, embedder)

    def _name(self, model: str) -> str:
        return f"openai/{model}/{DIMENSIONS}"


@pytest.fixture(scope="module")
async def library(stack: Stack) -> Library:
    """The passages, put there once."""
    made = Library(stack)
    await made.fill()
    return made


async def test_the_index_finds_the_nearest_among_many(library: Library) -> None:
    assert await library.recall(library.many, drafts=True) >= 0.95


async def test_few_rows_of_an_embedder_are_found_among_many_of_another(library: Library) -> None:
    assert await library.recall(library.few) >= 0.95


async def test_the_drafts_of_a_user_are_found_among_many_that_are_published(
    library: Library,
) -> None:
    own = await library.stack.inspection.rows(
        "SELECT content, embedding::text AS vector FROM passages WHERE document_id = $1 LIMIT 10",
        library.draft,
    )
    for row in own:
        vector = [float(number) for number in row["vector"].strip("[]").split(",")]
        hits = await library.search_of(library.many).relevant(
            acting_user(UserId(UUID(library.drafter.id))), "?", vector, limit=1
        )
        assert [hit.content for hit in hits] == [row["content"]]


async def test_row_security_does_not_keep_the_indexes_from_being_used(library: Library) -> None:
    actor = acting_user(UserId(UUID(library.drafter.id)))
    async with library.stack.foundation.database.statements(actor) as connection:
        plan = await connection.fetch(
            f"EXPLAIN (GENERIC_PLAN) {search_statement(DIMENSIONS)}",
            *("words", "words", actor.user_id, library.space.vector()),
            *(f"openai/{library.many}/{DIMENSIONS}", 1, 0.0, 10),
        )

    assert any(f"passages_embedding_{DIMENSIONS}_idx" in row[0] for row in plan)


async def test_long_vectors_are_found_by_an_index_of_half_the_precision(stack: Stack) -> None:
    dimensions, random = 3072, Random(3072)
    vectors = [[random.gauss(0, 1) for _ in range(dimensions)] for _ in range(60)]
    embedder = make_embedder(
        "openai", model=uuid4().hex, base_url="http://127.0.0.1:9", dimensions=dimensions
    )
    owner = await stack.sign_up()
    made = [NewPassage(str(place), vector, embedder.name) for place, vector in enumerate(vectors)]
    document = await add_document(stack.inspection, owner.id, *made)
    await publish(stack.inspection, document, 1)
    actor = acting_user(UserId(UUID(owner.id)))
    search = KnowledgeSearch(stack.foundation.database, embedder)

    found = [await search.relevant(actor, "?", vector, limit=1) for vector in vectors[:5]]
    async with stack.foundation.database.statements(actor) as connection:
        # For so few rows another way is cheaper.
        await connection.execute("SET LOCAL enable_sort = off")
        plan = await connection.fetch(
            f"EXPLAIN (GENERIC_PLAN) {search_statement(dimensions)}",
            *("?", "?", actor.user_id, vectors[0], embedder.name, 1, 0.0, 10),
        )
    await publish(stack.inspection, document, None)

    assert [[hit.content for hit in hits] for hits in found] == [["0"], ["1"], ["2"], ["3"], ["4"]]
    assert any("passages_embedding_3072_idx" in row[0] for row in plan)
