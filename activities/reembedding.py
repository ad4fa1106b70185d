"""Owns the activities of the workflow `Reembed`: counting what is stale, embedding a batch."""

from temporalio import activity

from activities import names
from activities.embedding_failures import embedding_failures
from activities.heartbeats import heartbeats
from schema.reembedding import EmbedBatchInput, EmbedBatchOutput, StaleCount
from services.reembedding.service import Reembedding


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
        with embedding_failures(refused=names.EMBEDDING_REFUSED):
            async with heartbeats():
                return await self._reembedding.embed_batch(wanted)
