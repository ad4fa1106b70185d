"""Shapes that the history of an ingestion can take, and that of their sweep."""

import asyncio
from contextlib import suppress
from typing import Any, Final
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowFailureError, WorkflowHandle

from schema.ids import DocumentId, ingestion_workflow_id
from schema.sweeps import SweepPart
from tests.fakes.embedding_api import honestly, never, saying
from tests.replay.scene import BACKGROUND_WORKER, SECRET, Scene
from tests.running_everturn.waiting import eventually

_SHORT: Final = f"Of {SECRET} there is enough."
# More passages than the embedder takes at once.
_LONG: Final = "\n\n".join(f"Of {SECRET} number {number}. " * 20 for number in range(70))
_AWAY: Final = saying(SECRET, status=503)
_WRONG: Final = saying(SECRET)
_REFUSED: Final = saying(SECRET, status=400)


async def ingestion_in_one_batch(scene: Scene) -> str:
    return await _ingested(scene, _SHORT)


async def ingestion_in_several_batches(scene: Scene) -> str:
    workflow_id = await _ingested(scene, _LONG)
    assert len(scene.embeddings.requests) > 1
    return workflow_id


async def ingestion_of_what_is_no_pdf(scene: Scene) -> str:
    document_id = await scene.client.add_file(SECRET.encode(), "application/pdf")
    return await _ended(scene, _workflow_of(document_id))


async def ingestion_while_the_embedder_is_away(scene: Scene) -> str:
    with scene.embedding_by(_AWAY):
        return await _ingested(scene, _SHORT)


async def ingestion_refused_by_the_embedder(scene: Scene) -> str:
    with scene.embedding_by(_REFUSED):
        return await _ingested(scene, _SHORT)


async def ingestion_that_falters(scene: Scene) -> str:
    with scene.embedding_by(_WRONG):
        return await _ingested(scene, _SHORT)


async def ingestion_that_falters_for_good(scene: Scene) -> str:
    """All pauses take 36 seconds."""
    with scene.embedding_by(*[_WRONG] * 4):
        return await _ingested(scene, _SHORT)


async def ingestion_cancelled_before_start(scene: Scene) -> str:
    await scene.everturn.stack.stop(BACKGROUND_WORKER)
    workflow_id = _workflow_of(await scene.client.add_document(_SHORT))
    await scene.temporal.get_workflow_handle(workflow_id).cancel()
    await scene.everturn.stack.start(BACKGROUND_WORKER)
    return await _ended(scene, workflow_id)


async def ingestion_cancelled_while_embedding(scene: Scene) -> str:
    with scene.embedding_by(never):
        workflow_id = _workflow_of(await scene.client.add_document(_SHORT))
        await scene.embedding_is_asked()
        await scene.temporal.get_workflow_handle(workflow_id).cancel()
        return await _ended(scene, workflow_id)


async def ingestion_cancelled_in_a_pause(scene: Scene) -> str:
    """The second pause is long enough to be met."""
    with scene.embedding_by(_WRONG, _WRONG):
        workflow_id = _workflow_of(await scene.client.add_document(_SHORT))
        handle = scene.temporal.get_workflow_handle(workflow_id)
        await eventually(lambda: _pauses(handle), lambda pauses: pauses == 2)
        await handle.cancel()
        return await _ended(scene, workflow_id)


async def ingestion_of_a_document_deleted_meanwhile(scene: Scene) -> str:
    deleted = asyncio.Event()

    async def once_deleted(request: Request, entries: list[dict[str, Any]]) -> Response:
        await deleted.wait()
        return await honestly(request, entries)

    with scene.embedding_by(once_deleted):
        document_id = await scene.client.add_document(_SHORT)
        await scene.embedding_is_asked()
        await scene.client.delete_document(document_id)
        deleted.set()
        return await _ended(scene, _workflow_of(document_id))


async def ingestion_of_a_document_deleted_before_start(scene: Scene) -> str:
    await scene.everturn.stack.stop(BACKGROUND_WORKER)
    document_id = await scene.client.add_document(_SHORT)
    await scene.client.delete_document(document_id)
    await scene.everturn.stack.start(BACKGROUND_WORKER)
    return await _ended(scene, _workflow_of(document_id))


async def sweep_that_starts_an_ingestion(scene: Scene) -> str:
    sweep, _ = await _swept(scene)
    return sweep


async def ingestion_started_by_a_sweep(scene: Scene) -> str:
    _, ingestion = await _swept(scene)
    return ingestion


async def _swept(scene: Scene) -> tuple[str, str]:
    """Return the workflows of a sweep and of the ingestion that it has started."""
    await scene.everturn.stack.stop("temporal")
    workflow_id = _workflow_of(await scene.client.add_document(_SHORT))
    await scene.everturn.stack.start("temporal")
    await scene.age("document_versions")
    sweep = await scene.sweep(SweepPart.INGESTIONS)
    return sweep, await _ended(scene, workflow_id)


async def _ingested(scene: Scene, content: str) -> str:
    return await _ended(scene, _workflow_of(await scene.client.add_document(content)))


async def _ended(scene: Scene, workflow_id: str) -> str:
    with suppress(WorkflowFailureError):
        await scene.temporal.get_workflow_handle(workflow_id).result()
    return workflow_id


async def _pauses(handle: WorkflowHandle[Any, Any]) -> int:
    events = (await handle.fetch_history()).events
    return sum(event.event_type == EventType.EVENT_TYPE_TIMER_STARTED for event in events)


def _workflow_of(document_id: str) -> str:
    return ingestion_workflow_id(DocumentId(UUID(document_id)), 1)


SHAPES: Final = (
    ingestion_in_one_batch,
    ingestion_in_several_batches,
    ingestion_of_what_is_no_pdf,
    ingestion_while_the_embedder_is_away,
    ingestion_refused_by_the_embedder,
    ingestion_that_falters,
    ingestion_that_falters_for_good,
    ingestion_cancelled_before_start,
    ingestion_cancelled_while_embedding,
    ingestion_cancelled_in_a_pause,
    ingestion_of_a_document_deleted_meanwhile,
    ingestion_of_a_document_deleted_before_start,
    sweep_that_starts_an_ingestion,
    ingestion_started_by_a_sweep,
)
