"""Re-embedding: after a change of embedders, and of rows stored during an outage."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from starlette.requests import Request
from starlette.responses import Response
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.knowledge import ReembeddingActivities
from schema.actors import acting_user
from schema.ids import UserId
from schema.names import BACKGROUND_QUEUE, REEMBED
from schema.reembedding import (
    EmbedBatchInput,
    EmbedBatchOutput,
    EmbeddedKind,
    ReembedOutcome,
)
from services.embeddings import EmbeddingRefusedError
from services.embeddings.providers import OpenAiCompatibleEmbedder
from services.knowledge.search import KnowledgeSearch
from services.reembedding import Reembedding
from tests.fakes.embedding_api import Answer, EmbeddingApi, honestly, saying, serving, vector_of
from tests.fixtures.api_user import ApiUser
from tests.fixtures.passages import NewPassage, add_document, add_version
from tests.fixtures.stack import Stack
from workflows.reembed import Reembed

MEMORIES, PASSAGES = EmbeddedKind.MEMORIES, EmbeddedKind.PASSAGES


@pytest.fixture(autouse=True)
async def nothing_else(stack: Stack) -> None:
    """Start without anything that other tests have left to embed."""
    await stack.inspection.execute("DELETE FROM documents")
    await stack.inspection.execute("DELETE FROM memories")


@pytest.fixture
def api() -> EmbeddingApi:
    """The provider of the embeddings."""
    return EmbeddingApi()


@pytest.fixture
async def origin(api: EmbeddingApi) -> AsyncIterator[str]:
    """Where the provider is."""
    async with serving(api) as address:
        yield address


MakeEmbedder = Callable[[str, int], OpenAiCompatibleEmbedder]


@pytest.fixture
async def embedder_of(origin: str) -> AsyncIterator[MakeEmbedder]:
    """Creates an embedder of a model with the given dimensions."""
    all_made: list[OpenAiCompatibleEmbedder] = []

    def make(model: str, dimensions: int) -> OpenAiCompatibleEmbedder:
        made = OpenAiCompatibleEmbedder(
            api_key=None,
            model=model,
            dimensions=dimensions,
            shorten=True,
            base_url=f"{origin}/compatible",
            timeout_s=5,
        )
        all_made.append(made)
        return made

    yield make
    for made in all_made:
        await made.close()


async def add_memories(stack: Stack, user: ApiUser, *contents: str) -> list[UUID]:
    ids = [uuid4() for _ in contents]
    for memory_id, content in zip(ids, contents, strict=True):
        await stack.inspection.execute(
            "INSERT INTO memories (id, user_id, kind, content) VALUES ($1, $2, 'fact', $3)",
            memory_id,
            UUID(user.id),
            content,
        )
    return ids


async def embed_all(
    reembedding: Reembedding, kind: EmbeddedKind, *, limit: int = 2
) -> list[EmbedBatchOutput]:
    """Embed batch after batch, as the workflow does."""
    batches = [await reembedding.embed_batch(EmbedBatchInput(kind=kind, limit=limit))]
    while batches[-1].place is not None:
        wanted = EmbedBatchInput(kind=kind, limit=limit, after=batches[-1].place)
        batches.append(await reembedding.embed_batch(wanted))
    return batches


async def makers(stack: Stack, table: str) -> set[tuple[Any, Any]]:
    rows = await stack.inspection.rows(f"SELECT embedder, vector_dims(embedding) FROM {table}")
    return {tuple(row.values()) for row in rows}


@pytest.mark.parametrize("dimensions", [8, 5])
async def test_after_a_change_of_embedders_everything_has_vectors_of_the_new_one(
    stack: Stack, user: ApiUser, embedder_of: MakeEmbedder, dimensions: int
) -> None:
    await add_memories(stack, user, "one", "two", "three")
    await add_document(stack.inspection, user.id, *(NewPassage(str(number)) for number in range(5)))
    old = Reembedding(stack.foundation.database, embedder_of("old", 8))
    new = Reembedding(stack.foundation.database, embedder_of("new", dimensions))
    for kind in EmbeddedKind:
        await embed_all(old, kind)

    stale = await new.count_stale()
    for kind in EmbeddedKind:
        await embed_all(new, kind)

    assert (stale.memories, stale.passages) == (3, 5)
    assert (await new.count_stale()).total == 0
    expected = {(f"openai/new/{dimensions}", dimensions)}
    assert await makers(stack, "memories") == await makers(stack, "passages") == expected


async def test_a_search_finds_by_meaning_only_reembedded_passages(
    stack: Stack, user: ApiUser, embedder_of: MakeEmbedder
) -> None:
    await add_document(stack.inspection, user.id, *(NewPassage(f"text {n}") for n in range(4)))
    old, new = embedder_of("old", 8), embedder_of("new", 8)
    await embed_all(Reembedding(stack.foundation.database, old), PASSAGES)
    reembedding = Reembedding(stack.foundation.database, new)
    await reembedding.embed_batch(EmbedBatchInput(kind=PASSAGES, limit=2))

    actor = acting_user(UserId(UUID(user.id)))
    by_new, by_old = [
        {
            hit.content
            for n in range(4)
            for hit in await KnowledgeSearch(stack.foundation.database, embedder).relevant(
                actor, "?", vector_of(f"text {n}", 8), limit=10
            )
        }
        for embedder in (new, old)
    ]

    assert len(by_new) == len(by_old) == 2
    assert by_new | by_old == {f"text {n}" for n in range(4)}


async def test_a_batch_that_is_run_twice_does_its_work_once(
    stack: Stack, user: ApiUser, api: EmbeddingApi, embedder_of: MakeEmbedder
) -> None:
    await add_memories(stack, user, "one", "two")
    reembedding = Reembedding(stack.foundation.database, embedder_of("model", 8))

    first = await reembedding.embed_batch(EmbedBatchInput(kind=MEMORIES))
    again = await reembedding.embed_batch(EmbedBatchInput(kind=MEMORIES))

    assert (first.embedded, again.embedded) == (2, 0)
    assert len(api.requests) == 1


async def test_a_memory_that_changes_while_it_is_embedded_keeps_no_stale_vector(
    stack: Stack, user: ApiUser, api: EmbeddingApi, embedder_of: MakeEmbedder
) -> None:
    (memory_id,) = await add_memories(stack, user, "before")
    reembedding = Reembedding(stack.foundation.database, embedder_of("model", 8))

    api.script = [
        _answer_after(stack, "UPDATE memories SET content = 'after' WHERE id = $1", memory_id)
    ]
    await reembedding.embed_batch(EmbedBatchInput(kind=MEMORIES))
    kept = await stack.inspection.value("SELECT embedder FROM memories WHERE id = $1", memory_id)
    await embed_all(reembedding, MEMORIES)

    assert kept is None
    assert [request.body["input"] for request in api.requests] == [["before"], ["after"]]
    assert (await reembedding.count_stale()).total == 0


async def test_a_document_that_is_deleted_while_it_is_embedded_stays_deleted(
    stack: Stack, user: ApiUser, api: EmbeddingApi, embedder_of: MakeEmbedder
) -> None:
    document = await add_document(stack.inspection, user.id, NewPassage("text"))
    reembedding = Reembedding(stack.foundation.database, embedder_of("model", 8))

    api.script = [_answer_after(stack, "DELETE FROM documents WHERE id = $1", document)]
    await embed_all(reembedding, PASSAGES)

    assert await stack.inspection.value("SELECT count(*) FROM passages") == 0


async def test_documents_being_ingested_are_not_reembedded(
    stack: Stack, user: ApiUser, embedder_of: MakeEmbedder
) -> None:
    document = await add_document(stack.inspection, user.id, NewPassage("ready"))
    await add_version(stack.inspection, document, 2, NewPassage("not ready"), status="processing")
    reembedding = Reembedding(stack.foundation.database, embedder_of("model", 8))

    batches = await embed_all(reembedding, PASSAGES)

    assert sum(batch.embedded for batch in batches) == 1


async def test_a_rejected_text_is_skipped(
    stack: Stack, user: ApiUser, api: EmbeddingApi, embedder_of: MakeEmbedder
) -> None:
    await add_memories(stack, user, "one", " ", "two", "three")
    reembedding = Reembedding(stack.foundation.database, embedder_of("model", 8))

    api.script = [saying("no", status=400), saying("no", status=400), honestly]
    batches = await embed_all(reembedding, MEMORIES, limit=10)

    assert [(batch.embedded, batch.skipped) for batch in batches] == [(2, 2)]


async def test_a_rejected_key_is_not_retried_with_every_text(
    stack: Stack, user: ApiUser, api: EmbeddingApi, embedder_of: MakeEmbedder
) -> None:
    await add_memories(stack, user, *(str(number) for number in range(20)))
    reembedding = Reembedding(stack.foundation.database, embedder_of("model", 8))

    api.script = [saying("no", status=401)] * 20
    with pytest.raises(EmbeddingRefusedError):
        await reembedding.embed_batch(EmbedBatchInput(kind=MEMORIES))

    assert len(api.requests) == 4


async def test_the_workflow_embeds_all_through_an_outage_of_the_provider(
    stack: Stack, user: ApiUser, api: EmbeddingApi, embedder_of: MakeEmbedder
) -> None:
    await add_memories(stack, user, "one", "two")
    await add_document(
        stack.inspection, user.id, *(NewPassage(str(number)) for number in range(70))
    )
    activities = ReembeddingActivities(
        Reembedding(stack.foundation.database, embedder_of("model", 8))
    )
    queue = f"reembedding-{uuid4()}"
    worker = Worker(
        stack.temporal,
        task_queue=queue,
        workflows=[Reembed],
        activities=[activities.count_stale, activities.embed_batch],
        workflow_runner=UnsandboxedWorkflowRunner(),
    )

    api.script = [saying("later", status=429, Retry_After="0")]
    async with worker, asyncio.timeout(60):
        outcome = await stack.temporal.execute_workflow(
            REEMBED, id=queue, task_queue=queue, result_type=ReembedOutcome
        )
        nothing = await stack.temporal.execute_workflow(
            REEMBED, id=f"{queue}-again", task_queue=queue, result_type=ReembedOutcome
        )

    assert outcome == ReembedOutcome(embedded=72, skipped=0)
    assert nothing == ReembedOutcome(embedded=0, skipped=0)


async def test_the_workers_of_everturn_embed_with_the_embedder_in_use(
    stack: Stack, user: ApiUser
) -> None:
    await add_memories(stack, user, "Prefers trains to planes.")

    async with asyncio.timeout(60):
        outcome = await stack.temporal.execute_workflow(
            REEMBED,
            id=f"reembed-{uuid4()}",
            task_queue=BACKGROUND_QUEUE,
            result_type=ReembedOutcome,
        )

    assert outcome == ReembedOutcome(embedded=1, skipped=0)
    embedder = stack.foundation.embedder
    assert await makers(stack, "memories") == {(embedder.name, embedder.dimensions)}


def _answer_after(stack: Stack, statement: str, row_id: UUID) -> Answer:
    """Answer honestly after a row has been changed."""

    async def answer(request: Request, entries: list[dict[str, Any]]) -> Response:
        await stack.inspection.execute(statement, row_id)
        return await honestly(request, entries)

    return answer
