"""The activities of ingestion and of re-embedding: read documents, embed texts."""

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import names
from activities.failures import embedding_failures
from activities.heartbeats import heartbeats
from schema.ingestion import (
    DocumentVersionReference,
    FinishIngestionInput,
    IngestionProgress,
)
from schema.reembedding import EmbedBatchInput, EmbedBatchOutput, StaleCount
from services.embeddings import EmbeddingAnswerError
from services.knowledge.extraction.extractor import ExtractionProcessError
from services.knowledge.ingestion import Ingestion
from services.reembedding import Reembedding

_log = structlog.get_logger(__name__)


class IngestionActivities:
    """What the workflow `IngestDocument` does outside itself."""

    def __init__(self, ingestion: Ingestion) -> None:
        self._ingestion = ingestion

    @activity.defn(name=names.EXTRACT_DOCUMENT)
    async def extract_document(self, version: DocumentVersionReference) -> IngestionProgress:
        """Store the version's text and passages, or why there are none.

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


def _faltered(error: Exception) -> ApplicationError:
    """Return the failure of an attempt that is worth a few retries."""
    _log.warning("ingestion_faltered", error=type(error).__name__, reason=str(error))
    return ApplicationError(
        f"{type(error).__name__}: see the worker's log",
        type=names.INGESTION_FALTERED,
        non_retryable=True,
    )


class ReembeddingActivities:
    """What the workflow `Reembed` does outside itself."""

    def __init__(self, reembedding: Reembedding) -> None:
        self._reembedding = reembedding

    async def is_any_stale(self) -> bool:
        """Whether `Reembed` has anything to do; no activity. Errors: DatabaseUnavailableError."""
        return await self._reembedding.is_any_stale()

    @activity.defn(name=names.COUNT_STALE)
    async def count_stale(self) -> StaleCount:
        """Return how many memories and passages have no vector of the embedder in use."""
        async with heartbeats():
            return await self._reembedding.count_stale()

    @activity.defn(name=names.EMBED_BATCH)
    async def embed_batch(self, wanted: EmbedBatchInput) -> EmbedBatchOutput:
        """Re-embed one batch of memories or passages.

        Errors: ApplicationError `EmbeddingRefused`, final; any other is retried, after as long
        as the embedding service asks for.
        """
        with embedding_failures(refused=names.EMBEDDING_REFUSED):
            async with heartbeats():
                return await self._reembedding.embed_batch(wanted)
