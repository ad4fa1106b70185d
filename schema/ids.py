"""Identifiers: their types, and how they are generated."""

from datetime import UTC, datetime, timedelta
from typing import Final, NewType
from uuid import UUID

from uuid_utils.compat import uuid7

UserId = NewType("UserId", UUID)
ApiKeyId = NewType("ApiKeyId", UUID)
ChatId = NewType("ChatId", UUID)
MessageId = NewType("MessageId", UUID)
SummaryId = NewType("SummaryId", UUID)
TurnId = NewType("TurnId", UUID)
PromptId = NewType("PromptId", UUID)
MemoryId = NewType("MemoryId", UUID)
DocumentId = NewType("DocumentId", UUID)
FileId = NewType("FileId", UUID)
PlanId = NewType("PlanId", UUID)
ShareId = NewType("ShareId", UUID)
MailId = NewType("MailId", UUID)
SessionId = NewType("SessionId", UUID)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def new_id() -> UUID:
    """Return a UUIDv7: unique, and ordered by creation time.

    Source: RFC 9562, section 5.7.
    """
    return uuid7()


def first_id_at(moment: datetime) -> UUID:
    """Return the lowest id that can be generated at a moment, to filter ids by time."""
    milliseconds = (moment - _EPOCH) // timedelta(milliseconds=1)
    return UUID(int=max(milliseconds, 0) << 80)


def turn_workflow_id(turn_id: TurnId) -> str:
    """Return the id of the workflow that runs this turn; at most one such workflow runs."""
    return f"turn-{turn_id}"


def work_batch_id(number: int) -> str:
    """Return the id of a batch of works after turns; at most one such workflow runs."""
    return f"works-{number}"


def ingestion_workflow_id(document_id: DocumentId, number: int) -> str:
    """Return the id of the workflow that ingests a version; at most one such workflow runs."""
    return f"ingest-{document_id}-{number}"


def mail_workflow_id(mail_id: MailId) -> str:
    """Return the id of the workflow that sends this mail; there is at most one, ever."""
    return f"mail-{mail_id}"
