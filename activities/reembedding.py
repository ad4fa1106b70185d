"""Owns the activities of the workflow `Reembed`: counting what is stale, embedding a batch."""

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import names
from activities.heartbeats import heartbeats
from schema.reembedding import EmbedBatchInput, EmbedBatchOutput, StaleCount
from services.embeddings import EmbeddingRefusedError, EmbeddingUnavailableError
from services.reembedding.service import Reembedding

_log = structlog.get_logger(__name__)


class ReembeddingActivities:
    """What the workflow `Reembed` does outside itself."""

    def __init__(self, reembedding: Reembedding) -> None:
        self._reembedding = reembedding

    @activity.defn(name=names.COUNT_STALE)
    async def count_stale(self) -> StaleCount:
        """Return how many memories and passages have no vector of the embedder in use."""
        async with heartbeats():
            return await self._reembedding.count_stale()

    @activity.defn(name=names.EMBED_BATCH)
    async def embed_batch(self, wanted: EmbedBatchInput) -> EmbedBatchOutput:
        """Embed one batch of memories or passages anew.

        Errors: ApplicationError `EmbeddingRefused`, final; any other is retried, after as long
        as the embedding service asks for.
        """
        async with heartbeats():
            try:
                return await self._reembedding.embed_batch(wanted)
            except EmbeddingRefusedError as error:
                _log.warning("embedding_refused", reason=str(error))
                raise ApplicationError(
                    "The embedding was refused", type=names.EMBEDDING_REFUSED, non_retryable=True
                ) from None
            except EmbeddingUnavailableError as error:
                _log.warning("embedding_postponed", reason=str(error))
                raise ApplicationError(
                    "The embedding service is not available",
                    type=type(error).__name__,
                    next_retry_delay=error.retry_after,
                ) from None
