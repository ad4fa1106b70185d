"""Ingestion: bytes become a text, passages, vectors; whatever fails, dies or goes on the way."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError

from schema.ids import DocumentId, ingestion_workflow_id
from schema.ingestion import (
    DocumentVersionReference,
    FinishIngestionInput,
    IngestionProblem,
    IngestionProgress,
)
from schema.knowledge import DocumentType, IngestionStatus
from services.embeddings import Embedder
from services.embeddings.providers import OpenAiCompatibleEmbedder
from tests.fakes.embedding_api import (
    KEY,
    OWN_DIMENSIONS,
    EmbeddingApi,
    changed,
    never,
    saying,
    serving,
)
from tests.fixtures import documents
from tests.fixtures.api_user import ApiUser
from tests.fixtures.library import (
    actor_of,
    add_document,
    ingested,
    ingesting_by,
    ingestion_with,
    outcome,
    passages_of,
    store_document,
    version_of,
)
from tests.fixtures.stack import Stack
from tests.running_everturn.waiting import eventually

LONG = "\n\n".join(f"Paragraph {number}. " + "Words fill it up. " * 30 for number in range(40))
READY = IngestionStatus.READY
FAILED = IngestionStatus.FAILED


class SmallBatches:
    """An embedder as it is, but for how much is a good unit of work."""

    max_batch = 16

    def __init__(self, embedder: Embedder) -> None:
        self.name = embedder.name
        self.dimensions = embedder.dimensions
        self.embed = embedder.embed
        self.close = embedder.close


@asynccontextmanager
async def embedder_of(api: EmbeddingApi) -> AsyncIterator[Embedder]:
    """Serve the provider and yield an embedder that needs several batches for `LONG`."""
    async with serving(api) as origin:
        embedder = OpenAiCompatibleEmbedder(
            api_key=KEY,
            model="of-the-tests",
            dimensions=OWN_DIMENSIONS,
            shorten=False,
            base_url=f"{origin}/compatible",
            timeout_s=20,
        )
        try:
            yield SmallBatches(embedder)
        finally:
            await embedder.close()


async def alerts_of(stack: Stack, document_id: UUID) -> list[dict[str, Any]]:
    return await stack.inspection.rows(
        "SELECT * FROM alerts WHERE resource_type = 'document' AND resource_id = $1",
        str(document_id),
    )


async def test_a_document_is_cut_into_passages_and_each_gets_a_vector(
    user: ApiUser, stack: Stack
) -> None:
    document_id = await add_document(user, LONG)

    version = await ingested(user, document_id)

    rows = await passages_of(stack, document_id)
    assert version["status"] == "ready"
    assert version["problem"] is None
    assert version["content"] == LONG
    assert version["finishedAt"] is not None
    assert version["passageCount"] == version["embeddedCount"] == len(rows) > 10
    assert [row["position"] for row in rows] == list(range(len(rows)))
    assert {row["embedder"] for row in rows} == {stack.foundation.embedder.name}
    assert {row["dimensions"] for row in rows} == {stack.foundation.embedder.dimensions}
    assert {row["published"] for row in rows} == {False}
    for row in rows:
        assert row["content"] == version["content"][row["start_char"] : row["end_char"]]


async def test_the_history_holds_no_text_and_no_vector(user: ApiUser, stack: Stack) -> None:
    document_id = await add_document(user, f"A secret: marzipan. {LONG}")
    await ingested(user, document_id)

    workflow_id = ingestion_workflow_id(DocumentId(UUID(document_id)), 1)
    handle = stack.temporal.get_workflow_handle(workflow_id)
    await outcome(handle)
    history = (await handle.fetch_history()).to_json()

    assert "marzipan" not in history
    assert len(history) < 100_000
    described = await handle.describe()
    assert user.id in str(described.typed_search_attributes)


@pytest.mark.parametrize(
    ("content_type", "source", "problem"),
    [
        ("text/plain", b" \n\t ", "empty"),
        ("text/plain", b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "does not match its content type"),
        ("application/pdf", b"I am no PDF.", "does not match its content type"),
        ("application/pdf", documents.pdf(""), "no readable text"),
        ("application/pdf", documents.encrypted_pdf("x", password="y"), "encrypted"),
        ("application/pdf", documents.bomb(2_000_000_000, layers=2), "too much memory or time"),
        ("text/plain", b"a b " * 600_000, "too much text"),
    ],
    ids=["blank", "picture", "no-pdf", "no-text", "encrypted", "bomb", "long"],
)
async def test_a_document_without_text_fails_with_a_reason(
    user: ApiUser, stack: Stack, *, content_type: DocumentType, source: bytes, problem: str
) -> None:
    version = await store_document(stack, user, source, content_type)

    await stack.services.temporal.start_ingestion(version.document_id, 1, owner=version.user_id)

    failed = await ingested(user, str(version.document_id))
    assert failed["status"] == "failed"
    assert problem in failed["problem"]
    assert failed["content"] is None
    assert failed["passageCount"] == failed["embeddedCount"] == 0
    assert await passages_of(stack, version.document_id) == []
    assert [alert["severity"] for alert in await alerts_of(stack, version.document_id)] == [
        "warning"
    ]


async def test_a_pdf_is_ingested(user: ApiUser, stack: Stack) -> None:
    version = await store_document(stack, user, documents.pdf("Hello"), "application/pdf")

    await stack.services.temporal.start_ingestion(version.document_id, 1, owner=version.user_id)

    assert (await ingested(user, str(version.document_id)))["content"] == "Hello"


async def test_an_outage_of_the_embedder_is_waited_for_and_no_passage_is_embedded_twice(
    user: ApiUser, stack: Stack
) -> None:
    api = EmbeddingApi()
    away = saying("", status=503, Retry_After="0.05")
    limited = saying("", status=429, Retry_After="0.05")
    version = await store_document(stack, user, LONG.encode())
    async with embedder_of(api) as embedder, ingesting_by(stack, embedder) as ingest:
        honest = changed(lambda entries: entries)
        api.script = [honest, away, limited, away, honest]
        ended = await outcome(await ingest(version))

    rows = await passages_of(stack, version.document_id)
    assert ended == IngestionProgress(status=READY, passages=len(rows), embedded=len(rows))
    texts = [text for request in api.requests for text in request.body["input"]]
    batches = -(-len(rows) // 16)
    assert len(api.requests) == batches + 3
    assert {row["content"].strip() for row in rows} == set(texts)
    assert all(row["dimensions"] == OWN_DIMENSIONS for row in rows)


async def test_a_rejection_of_a_document_by_the_embedding_service_is_final(
    user: ApiUser, stack: Stack
) -> None:
    api = EmbeddingApi()
    version = await store_document(stack, user, LONG.encode())
    async with embedder_of(api) as embedder, ingesting_by(stack, embedder) as ingest:
        api.script = [changed(lambda entries: entries), saying("", status=400)]
        handle = await ingest(version)
        ended = await outcome(handle)

    assert ended == IngestionProgress(status=FAILED)
    assert len(api.requests) == 2
    failed = await version_of(user, str(version.document_id))
    assert failed["problem"] == "The embedding service rejected the document."
    assert await passages_of(stack, version.document_id) == []
    assert (await handle.describe()).status is WorkflowExecutionStatus.COMPLETED


async def test_an_invalid_answer_is_retried_with_a_delay(user: ApiUser, stack: Stack) -> None:
    api = EmbeddingApi()
    version = await store_document(stack, user, b"One passage.")
    async with embedder_of(api) as embedder, ingesting_by(stack, embedder) as ingest:
        api.script = [saying("not an answer")]
        ended = await outcome(await ingest(version))

    assert ended == IngestionProgress(status=READY, passages=1, embedded=1)
    assert len(api.requests) == 2


async def test_an_ingestion_continues_at_the_next_batch_after_its_worker_dies(
    user: ApiUser, stack: Stack
) -> None:
    api = EmbeddingApi()
    version = await store_document(stack, user, LONG.encode())
    async with embedder_of(api) as embedder:
        ingestion = ingestion_with(stack, embedder)
        extracted = await ingestion.extract(version)
        first = await ingestion.embed_batch(version)
        api.script = [never]
        dying = asyncio.create_task(ingestion.embed_batch(version))
        await eventually(lambda: _count(api), lambda count: count == 2)
        dying.cancel()
        await asyncio.wait({dying})

        again = ingestion_with(stack, embedder)
        assert await again.extract(version) == first
        async with ingesting_by(stack, embedder) as ingest:
            ended = await outcome(await ingest(version))

    assert first == IngestionProgress(
        status=IngestionStatus.PROCESSING, passages=extracted.passages, embedded=16
    )
    assert ended.status is READY
    assert ended.left == 0
    kept = [request.body["input"] for request in [api.requests[0], *api.requests[2:]]]
    assert sum(map(len, kept)) == extracted.passages


async def _count(api: EmbeddingApi) -> int:
    return len(api.requests)


async def test_passages_of_another_embedder_are_embedded_again(user: ApiUser, stack: Stack) -> None:
    version = await store_document(stack, user, LONG.encode())
    async with embedder_of(EmbeddingApi()) as embedder:
        await ingestion_with(stack, stack.foundation.embedder).extract(version)
        await ingestion_with(stack, stack.foundation.embedder).embed_batch(version)
        async with ingesting_by(stack, embedder) as ingest:
            ended = await outcome(await ingest(version))

    rows = await passages_of(stack, version.document_id)
    assert ended == IngestionProgress(status=READY, passages=len(rows), embedded=len(rows))
    assert {row["embedder"] for row in rows} == {embedder.name}
    assert {row["dimensions"] for row in rows} == {OWN_DIMENSIONS}


async def test_ingesting_an_ingested_document_again_changes_nothing(
    user: ApiUser, stack: Stack
) -> None:
    document_id = await add_document(user, LONG)
    version = await ingested(user, document_id)
    rows = await passages_of(stack, document_id)
    reference = DocumentVersionReference(
        document_id=DocumentId(UUID(document_id)), number=1, user_id=actor_of(user).user_id
    )

    ingestion = ingestion_with(stack, stack.foundation.embedder)
    for problem in (None, IngestionProblem.STOPPED):
        await ingestion.extract(reference)
        await ingestion.embed_batch(reference)
        await ingestion.finish(FinishIngestionInput(version=reference, problem=problem))
    async with ingesting_by(stack, stack.foundation.embedder) as ingest:
        ended = await outcome(await ingest(reference))

    assert ended.status is READY
    assert await version_of(user, document_id) == version
    assert await passages_of(stack, document_id) == rows


async def test_two_workers_that_ingest_the_same_version_store_its_passages_once(
    user: ApiUser, stack: Stack
) -> None:
    version = await store_document(stack, user, LONG.encode())
    both = [ingestion_with(stack, stack.foundation.embedder) for _ in range(2)]

    extracted = await asyncio.gather(*(each.extract(version) for each in both))
    embedded = await asyncio.gather(*(each.embed_batch(version) for each in both))

    assert extracted[0] == extracted[1]
    assert embedded[0] == embedded[1]
    assert len(await passages_of(stack, version.document_id)) == extracted[0].passages


async def test_a_document_deleted_while_it_is_embedded_ends_its_ingestion_quietly(
    user: ApiUser, stack: Stack
) -> None:
    api = EmbeddingApi()
    version = await store_document(stack, user, LONG.encode())
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def held(request: object, entries: object) -> object:
        asked.set()
        await go_on.wait()
        return await changed(lambda same: same)(request, entries)  # type: ignore[arg-type]

    api.script = [held]  # type: ignore[list-item]
    async with embedder_of(api) as embedder, ingesting_by(stack, embedder) as ingest:
        handle = await ingest(version)
        async with asyncio.timeout(30):
            await asked.wait()
        deleted = await user.request("DELETE", f"/knowledge/{version.document_id}")
        go_on.set()
        ended = await outcome(handle)

    assert deleted.status_code == 204
    assert ended == IngestionProgress(status=None)
    assert await passages_of(stack, version.document_id) == []


async def test_a_document_deleted_before_its_ingestion_began_ends_it_quietly(
    user: ApiUser, stack: Stack
) -> None:
    version = await store_document(stack, user, b"Soon gone.")
    await stack.services.knowledge.documents.delete(actor_of(user), version.document_id)

    async with ingesting_by(stack, stack.foundation.embedder) as ingest:
        ended = await outcome(await ingest(version))

    assert ended == IngestionProgress(status=None)


async def test_an_ingestion_that_an_operator_cancels_has_failed(
    user: ApiUser, stack: Stack
) -> None:
    api = EmbeddingApi()
    api.script = [never]
    version = await store_document(stack, user, LONG.encode())
    async with embedder_of(api) as embedder, ingesting_by(stack, embedder) as ingest:
        handle = await ingest(version)
        await eventually(lambda: _count(api), lambda count: count == 1)
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await outcome(handle)

    assert (await handle.describe()).status is WorkflowExecutionStatus.CANCELED
    failed = await version_of(user, str(version.document_id))
    assert failed["status"] == "failed"
    assert "stopped" in failed["problem"]
    (alert,) = await alerts_of(stack, version.document_id)
    assert json.loads(alert["details"]) == {"version": 1, "problem": "stopped"}


async def test_a_version_that_failed_alerts_once_however_often_that_is_stored(
    user: ApiUser, stack: Stack
) -> None:
    version = await store_document(stack, user, LONG.encode())
    ending = FinishIngestionInput(version=version, problem=IngestionProblem.KEPT_FAILING)
    ingestion = ingestion_with(stack, stack.foundation.embedder)

    ended = await asyncio.gather(*(ingestion.finish(ending) for _ in range(5)))

    assert {progress.status for progress in ended} == {FAILED}
    (alert,) = await alerts_of(stack, version.document_id)
    assert (alert["kind"], alert["user_id"]) == ("document.failed", version.user_id)
    assert json.loads(alert["details"]) == {"version": 1, "problem": "kept_failing"}


async def test_a_version_of_a_user_who_was_deleted_fails_without_an_alert(stack: Stack) -> None:
    leaving = await stack.sign_up()
    version = await store_document(stack, leaving, LONG.encode())
    ending = FinishIngestionInput(version=version, problem=IngestionProblem.KEPT_FAILING)
    await stack.inspection.execute("DELETE FROM users WHERE id = $1", version.user_id)

    ended = await ingestion_with(stack, stack.foundation.embedder).finish(ending)

    assert ended.status is None
    assert await alerts_of(stack, version.document_id) == []
