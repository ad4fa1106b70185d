"""Owns what somebody sends to become a document's text: storing it, and knowing it again."""

import hashlib
from dataclasses import dataclass

from sqlmodel.ext.asyncio.session import AsyncSession

from schema.ids import DocumentId
from schema.knowledge import DocumentType
from schema.tables import DocumentRow, DocumentVersionRow
from schema.wire import Payload


@dataclass(frozen=True, slots=True)
class Submission:
    """The bytes of a version as they were sent, and what they are said to be."""

    content_type: DocumentType
    source: bytes


@dataclass(frozen=True, slots=True)
class TitledSubmission(Submission):
    """The first version of a document."""

    title: str


class SubmissionIdentity(Payload):
    """What tells one submission from another under an idempotency key."""

    document_id: DocumentId | None
    title: str | None
    content_type: str
    source_hash: str


def identity_of(
    submission: Submission, *, document_id: DocumentId | None = None
) -> SubmissionIdentity:
    """Return the identity of what was sent; hashing a large one takes a thread's time.

    Whether it came as a string or as a file makes no difference.
    """
    return SubmissionIdentity(
        document_id=document_id,
        title=submission.title if isinstance(submission, TitledSubmission) else None,
        content_type=submission.content_type,
        source_hash=hashlib.sha256(submission.source).hexdigest(),
    )


async def store_version(
    session: AsyncSession, row: DocumentRow, submission: Submission
) -> DocumentVersionRow:
    """Store what was sent as the latest version of a document."""
    version = DocumentVersionRow(
        document_id=row.id,
        number=row.latest_version,
        user_id=row.user_id,
        content_type=submission.content_type,
        source=submission.source,
    )
    session.add(version)
    await session.flush()
    return version
