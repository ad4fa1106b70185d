"""The versions of a document: added and read, never changed."""

import asyncio
import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sqlalchemy import Integer, Uuid, bindparam, func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import SERVICE, Actor
from schema.ids import DocumentId
from schema.knowledge import DocumentText, DocumentType, DocumentVersion
from schema.pages import Page, PageRequest
from schema.result import Err, Ok, Result
from schema.tables import DocumentRow, DocumentVersionRow
from schema.tables.columns import utc_now
from schema.wire import Payload
from services.database import Database
from services.database.queries import CompiledQuery, Listing, Order, by_id
from services.knowledge.rows import (
    WITHOUT_SOURCE,
    is_version,
    light,
    text_from_row,
    version_from_row,
)
from services.resources import (
    Conflict,
    Unreachable,
    create_once,
    why_unreachable,
)


class VersionRefusal(StrEnum):
    """Why a version can't be read or published, although its document can."""

    NO_SUCH_VERSION = "no_such_version"
    DRAFT_OF_ANOTHER = "draft_of_another"


class PublicationRefusal(StrEnum):
    """Why an existing version can't be published."""

    NOT_READY = "not_ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Submission:
    """The bytes of a version as they were uploaded, and their declared content type."""

    content_type: DocumentType
    source: bytes


@dataclass(frozen=True, slots=True)
class TitledSubmission(Submission):
    """The first version of a document."""

    title: str


class SubmissionIdentity(Payload):
    """What identifies a submission under an idempotency key."""

    document_id: DocumentId | None
    title: str | None
    content_type: str
    source_hash: str


def identity_of(
    submission: Submission, *, document_id: DocumentId | None = None
) -> SubmissionIdentity:
    """Return the identity of a submission; call it in a thread, a large one takes time to hash.

    Submitted as a string or as a file, it is the same.
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
    """Store a submission as the latest version of a document."""
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


_NEWEST_FIRST: Final = Order("-number", (col(DocumentVersionRow.number),), descending=True)
_DOCUMENT_ID: Final = bindparam("document_id", type_=Uuid)
_DOCUMENT: Final = by_id(DocumentRow)
_IS_VERSION: Final = is_version(_DOCUMENT_ID, bindparam("number", type_=Integer))
_VERSION: Final = CompiledQuery(light().where(_IS_VERSION))
_VERSION_WITH_TEXT: Final = CompiledQuery(
    select(DocumentVersionRow).options(WITHOUT_SOURCE).where(_IS_VERSION)
)
_VERSIONS: Final = Listing(light().where(col(DocumentVersionRow.document_id) == _DOCUMENT_ID))


class DocumentVersions:
    """Manages the versions of documents. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(
        self, actor: Actor, document_id: DocumentId, submission: Submission, *, key: str | None
    ) -> Result[DocumentVersion, Conflict | Unreachable]:
        """Add a version that is to be ingested; the published version stays published.

        Idempotency: the same key with the same bytes returns the version created before.
        """
        identity = await asyncio.to_thread(identity_of, submission, document_id=document_id)

        async def next_number(session: AsyncSession) -> Result[int, Unreachable]:
            row = await session.get(DocumentRow, document_id, with_for_update=True)
            return Err(Unreachable.MISSING) if row is None else Ok(row.latest_version + 1)

        async def create(session: AsyncSession) -> Result[DocumentVersion, Unreachable]:
            row = await session.get_one(DocumentRow, document_id)
            return Ok(version_from_row(await _append(session, row, submission)))

        created = await create_once(
            self._database,
            actor,
            key,
            request=identity,
            resource_id=next_number,
            create=create,
            find=lambda earlier: self._get(actor, document_id, int(earlier)),
        )
        if created == Err(Unreachable.MISSING):
            return Err(await why_unreachable(self._database, DocumentRow, document_id))
        return created

    async def list_versions(
        self, actor: Actor, document_id: DocumentId, page: PageRequest
    ) -> Result[Page[DocumentVersion], Unreachable]:
        """Return the versions that the actor may see, newest first.

        Of another's document that is the published one.
        Errors: InvalidCursorError.
        """
        its = {"document_id": document_id}
        async with self._database.statements(actor) as connection:
            if await _DOCUMENT.first(connection, id=document_id) is not None:
                rows = await _VERSIONS.read(connection, page, _NEWEST_FIRST, its)
                return Ok(rows.map(version_from_row))
        return Err(await why_unreachable(self._database, DocumentRow, document_id))

    async def read(
        self, actor: Actor, document_id: DocumentId, number: int
    ) -> Result[DocumentText, Unreachable | VersionRefusal]:
        """Return a version with its text."""
        wanted = {"document_id": document_id, "number": number}
        async with self._database.statements(actor) as connection:
            row = await _VERSION_WITH_TEXT.first(connection, **wanted)
        if row is None:
            return Err(await self._why_missing(actor, document_id, number))
        return Ok(text_from_row(row))

    async def _get(
        self, actor: Actor, document_id: DocumentId, number: int
    ) -> Result[DocumentVersion, Unreachable | VersionRefusal]:
        wanted = {"document_id": document_id, "number": number}
        async with self._database.statements(actor) as connection:
            row = await _VERSION.first(connection, **wanted)
        if row is None:
            return Err(await self._why_missing(actor, document_id, number))
        return Ok(version_from_row(row))

    async def _why_missing(
        self, actor: Actor, document_id: DocumentId, number: int
    ) -> Unreachable | VersionRefusal:
        async with self._database.transaction(actor) as session:
            document = await session.get(DocumentRow, document_id)
        if document is None:
            return await why_unreachable(self._database, DocumentRow, document_id)
        query = select(func.count()).where(is_version(document_id, number))
        # The policies hide drafts of others, so a hidden draft looks like a missing version.
        async with self._database.transaction(SERVICE) as session:
            is_there = (await session.exec(query)).one() > 0
        return VersionRefusal.DRAFT_OF_ANOTHER if is_there else VersionRefusal.NO_SUCH_VERSION


async def _append(
    session: AsyncSession, row: DocumentRow, submission: Submission
) -> DocumentVersionRow:
    """Add the next version of a document whose row is locked."""
    row.latest_version += 1
    row.version += 1
    row.updated_at = utc_now()
    return await store_version(session, row, submission)
