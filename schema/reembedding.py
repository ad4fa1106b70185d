"""Owns what Temporal carries of embedding anew: ids and counts, never what is embedded."""

from enum import StrEnum
from uuid import UUID

from schema.wire import Payload


class EmbeddedKind(StrEnum):
    """What has vectors."""

    MEMORIES = "memories"
    PASSAGES = "passages"


class EmbeddedPlace(Payload):
    """Where a batch ended: behind a row, which `embedder` had made a vector of, or nobody."""

    embedder: str | None
    id: UUID


class EmbedBatchInput(Payload):
    """Input of `embed_batch`; the batch begins behind `after`. Units: `limit` counts rows."""

    kind: EmbeddedKind
    after: EmbeddedPlace | None = None
    limit: int | None = None


class EmbedBatchOutput(Payload):
    """Result of `embed_batch`: how many rows have got vectors, and how many will not.

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
        """How many rows have no vector of the embedder that is in use."""
        return self.memories + self.passages


class ReembedProgress(Payload):
    """What the workflow `Reembed` hands to its next run; `kind` is null at its end."""

    total: int
    kind: EmbeddedKind | None = EmbeddedKind.MEMORIES
    after: EmbeddedPlace | None = None
    embedded: int = 0
    skipped: int = 0


class ReembedOutcome(Payload):
    """Result of the workflow `Reembed`."""

    embedded: int
    skipped: int
