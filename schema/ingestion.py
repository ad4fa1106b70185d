"""Payloads of ingestion: ids and counts, never a document's content."""

from enum import StrEnum

from schema.ids import DocumentId, UserId
from schema.knowledge import IngestionStatus
from schema.wire import Payload


class DocumentVersionReference(Payload):
    """Input of the workflow `IngestDocument` and of its activities."""

    document_id: DocumentId
    number: int
    user_id: UserId


class IngestionProgress(Payload):
    """Progress of an ingestion; `status` is null once the document has been deleted.

    Units: `passages` counts those of the version, `embedded` those with a vector.
    """

    status: IngestionStatus | None
    passages: int = 0
    embedded: int = 0

    @property
    def is_under_way(self) -> bool:
        """Whether there is anything left to do."""
        return self.status in {IngestionStatus.PENDING, IngestionStatus.PROCESSING}

    @property
    def left(self) -> int:
        """The number of passages without a vector."""
        return self.passages - self.embedded


class IngestionProblem(StrEnum):
    """Why an ingestion ended without vectors, or was stopped."""

    EMBEDDING_REFUSED = "embedding_refused"
    KEPT_FAILING = "kept_failing"
    STOPPED = "stopped"


class FinishIngestionInput(Payload):
    """Input of `finish_ingestion`; without a problem the version is ready."""

    version: DocumentVersionReference
    problem: IngestionProblem | None = None


class StrandedIngestions(Payload):
    """Versions whose ingestion has no running workflow."""

    to_start: tuple[DocumentVersionReference, ...] = ()


class IngestionSweepOutcome(Payload):
    """Result of the workflow `SweepIngestions`."""

    started: int
