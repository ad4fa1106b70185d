"""Payloads of re-embedding: ids and counts, never the embedded content."""

from enum import StrEnum
from uuid import UUID

from schema.wire import Payload


class EmbeddedKind(StrEnum):
    """Kinds of rows with vectors."""

    MEMORIES = "memories"
    PASSAGES = "passages"


class EmbeddedPlace(Payload):
    """Where a batch ended: after a row with a vector of `embedder`, null for no vector."""

    embedder: str | None
    id: UUID


class EmbedBatchInput(Payload):
    """Input of `embed_batch`; the batch begins after `after`. Units: `limit` counts rows."""

    kind: EmbeddedKind
    after: EmbeddedPlace | None = None
    limit: int | None = None


class EmbedBatchOutput(Payload):
    """Result of `embed_batch`: how many rows got vectors, and how many were skipped.

    `place` is where the next batch begins, null where nothing is left.
    """

    embedded: int = 0
    skipped: int = 0
    place: EmbeddedPlace | None = None


class StaleCount(Payload):
    """Result of `count_stale`. Units: rows."""

    memories: int
    passages: int

    @property
    def total(self) -> int:
        """The number of rows without a vector of the embedder in use."""
        return self.memories + self.passages


class ReembedProgress(Payload):
    """What a run of the workflow `Reembed` passes to the next; `kind` is null at its end."""

    total: int
    kind: EmbeddedKind | None = EmbeddedKind.MEMORIES
    after: EmbeddedPlace | None = None
    embedded: int = 0
    skipped: int = 0


class ReembedOutcome(Payload):
    """Result of the workflow `Reembed`."""

    embedded: int
    skipped: int
