"""The sweep starts ingestions that have no workflow."""

import asyncio
from uuid import uuid4

from schema.ids import ingestion_workflow_id
from schema.names import BACKGROUND_QUEUE
from schema.sweeps import SweepInput, SweepPart
from tests.fixtures.api_user import ApiUser
from tests.fixtures.library import (
    age,
    ingested,
    ingesting_by,
    ingestion_with,
    store_document,
    version_of,
)
from tests.fixtures.stack import Stack
from workflows.sweep import Sweep


async def test_an_ingestion_that_was_never_started_is_started_by_the_sweep(
    user: ApiUser, stack: Stack
) -> None:
    version = await store_document(stack, user, b"Late, but here.")
    fresh = await store_document(stack, user, b"Just being started.")
    await age(stack, version)

    await _sweep(stack)

    assert (await ingested(user, str(version.document_id)))["content"] == "Late, but here."
    assert (await version_of(user, str(fresh.document_id)))["status"] == "pending"


async def test_an_ingestion_that_lost_its_workflow_is_started_by_the_sweep(
    user: ApiUser, stack: Stack
) -> None:
    version = await store_document(stack, user, b"Some words.")
    await ingestion_with(stack, stack.foundation.embedder).extract(version)
    await age(stack, version)

    await _sweep(stack)

    assert (await ingested(user, str(version.document_id)))["status"] == "ready"


async def test_a_running_ingestion_is_left_alone_by_the_sweep(user: ApiUser, stack: Stack) -> None:
    version = await store_document(stack, user, b"Under way.")
    await age(stack, version)
    async with ingesting_by(stack, stack.foundation.embedder):
        # No worker polls its queue, so it runs for as long as the test needs.
        handle = await stack.temporal.start_workflow(
            "IngestDocument",
            version,
            id=ingestion_workflow_id(version.document_id, 1),
            task_queue=f"nobody-{uuid4()}",
        )

        await _sweep(stack)

        assert (await version_of(user, str(version.document_id)))["status"] == "pending"
        await handle.terminate()


async def _sweep(stack: Stack) -> None:
    async with asyncio.timeout(30):
        await stack.temporal.execute_workflow(
            Sweep.run,
            SweepInput(parts=(SweepPart.INGESTIONS,)),
            id=f"sweep-{uuid4()}",
            task_queue=BACKGROUND_QUEUE,
        )
