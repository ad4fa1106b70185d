"""Owns the activities of ingestion: reading a document, embedding its passages, ending it."""

from datetime import timedelta
from typing import Final

import structlog
from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.exceptions import ApplicationError

from activities import names
from activities.embedding_failures import embedding_failures
from activities.heartbeats import heartbeats
from activities.turn_workflows import workflow_status
from schema.ids import ingestion_workflow_id
from schema.ingestion import (
    DocumentVersionReference,
    FinishIngestionInput,
    IngestionProgress,
    StrandedIngestions,
)
from services.embeddings import EmbeddingAnswerError
from services.knowledge.extraction.guarded_process import ExtractionProcessError
from services.knowledge.ingestion import Ingestion
from services.knowledge.stranded import StrandedIngestionSearch

_log = structlog.get_logger(__name__)

_SETTLED: Final = timedelta(seconds=5)
"""Younger versions are still being started by whoever accepted them."""


class IngestionActivities:
    """What the workflow `IngestDocument` does outside itself."""

    def __init__(self, ingestion: Ingestion) -> None:
        self._ingestion = ingestion

    @activity.defn(name=names.EXTRACT_DOCUMENT)
    async def extract_document(self, version: DocumentVersionReference) -> IngestionProgress:
        """Store the version's text and passages, or why it has none.

        Errors: ApplicationError `IngestionFaltered`, for the workflow to try a few times again;
        any other is retried.
        """
        async with heartbeats():
            try:
                return await self._ingestion.extract(version)
            except (ExtractionProcessError, OSError) as error:
                raise _faltered(error) from None

    @activity.defn(name=names.EMBED_PASSAGES)
    async def embed_passages(self, version: DocumentVersionReference) -> IngestionProgress:
        """Embed one batch of the version's passages and say how many are left.

        Errors: ApplicationError `IngestionRefused`, final; `IngestionFaltered`, as above; any
        other is retried, after as long as the embedding service asks for.
        """
        async with heartbeats():
            with embedding_failures(refused=names.INGESTION_REFUSED):
                try:
                    return await self._ingestion.embed_batch(version)
                except EmbeddingAnswerError as error:
                    raise _faltered(error) from None

    @activity.defn(name=names.FINISH_INGESTION)
    async def finish_ingestion(self, ending: FinishIngestionInput) -> IngestionProgress:
        """Mark the version as ready or as failed."""
        return await self._ingestion.finish(ending)


class IngestionSweepActivities:
    """What the workflow `SweepIngestions` does outside itself."""

    def __init__(self, client: Client, search: StrandedIngestionSearch) -> None:
        self._client = client
        self._search = search

    @activity.defn(name=names.FIND_STRANDED_INGESTIONS)
    async def find_stranded_ingestions(self) -> StrandedIngestions:
        """Return versions that are not ingested and whose workflow does not run."""
        to_start: list[DocumentVersionReference] = []
        for version in await self._search.unfinished(older_than=_SETTLED):
            is_running = await self._is_running(version)
            activity.heartbeat()
            to_start += [] if is_running else [version]
        return StrandedIngestions(to_start=tuple(to_start))

    async def _is_running(self, version: DocumentVersionReference) -> bool:
        workflow_id = ingestion_workflow_id(version.document_id, version.number)
        status = await workflow_status(self._client, workflow_id)
        return status is WorkflowExecutionStatus.RUNNING


def _faltered(error: Exception) -> ApplicationError:
    """Return the failure of an attempt that is worth repeating, but not for ever."""
    _log.warning("ingestion_faltered", error=type(error).__name__, reason=str(error))
    return ApplicationError(
        f"{type(error).__name__}: see the worker's log",
        type=names.INGESTION_FALTERED,
        non_retryable=True,
    )
