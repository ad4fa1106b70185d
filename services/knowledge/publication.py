"""Publishes and withdraws versions of a document: all flags change in one transaction.

Publishing and withdrawing both lock the document's row first.
"""

from typing import Final

from sqlalchemy import update
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.audit import AuditAction, ResourceType
from schema.ids import DocumentId
from schema.knowledge import Document, IngestionStatus
from schema.result import Err, Ok, Result
from schema.tables import DocumentRow, DocumentVersionRow, PassageRow
from services.audit import record
from services.database import Database
from services.knowledge.rows import is_version, light, shown_locked
from services.knowledge.versions import PublicationRefusal, VersionRefusal
from services.resources import Unreachable, touch, why_unreachable

# What is published enters the index of vectors, which takes milliseconds for each passage; a
# statement may take 30 s.
_PASSAGES_AT_ONCE: Final = 1_000


class Publication:
    """Publishes and unpublishes versions. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def publish(
        self, actor: Actor, document_id: DocumentId, number: int | None
    ) -> Result[Document, Unreachable | VersionRefusal | PublicationRefusal]:
        """Make a version, the latest by default, the one that others find.

        Idempotency: publishing what is published changes nothing.
        """
        async with self._database.transaction(actor) as session:
            row = await session.get(DocumentRow, document_id, with_for_update=True)
            if row is not None:
                wanted = row.latest_version if number is None else number
                version = await _locked_version(session, row, wanted)
                if version is None:
                    return Err(VersionRefusal.NO_SUCH_VERSION)
                match IngestionStatus(version.status):
                    case IngestionStatus.FAILED:
                        return Err(PublicationRefusal.FAILED)
                    case IngestionStatus.PENDING | IngestionStatus.PROCESSING:
                        return Err(PublicationRefusal.NOT_READY)
                    case IngestionStatus.READY:
                        await _put(session, actor, row, version)
                        return Ok(await shown_locked(session, actor, row))
        return Err(await why_unreachable(self._database, DocumentRow, document_id))

    async def unpublish(
        self, actor: Actor, document_id: DocumentId
    ) -> Result[Document, Unreachable]:
        """Hide a document from everyone except its owner; administrators may do so too.

        Idempotency: withdrawing a draft changes nothing.
        """
        async with self._database.transaction(actor) as session:
            row = await session.get(DocumentRow, document_id, with_for_update=True)
            if row is not None:
                await _put(session, actor, row, None)
                return Ok(await shown_locked(session, actor, row))
        return Err(await why_unreachable(self._database, DocumentRow, document_id))


async def _put(
    session: AsyncSession, actor: Actor, row: DocumentRow, version: DocumentVersionRow | None
) -> None:
    """Publish `version`, or none."""
    before, after = row.published_version, None if version is None else version.number
    if before == after:
        return
    # The old one first: the database holds that there is never more than one.
    if before is not None:
        await _flag(session, row, before, published=False)
    if version is not None:
        await _flag(session, row, version.number, published=True)
    row.published_version = after
    touch(row)
    action = AuditAction.DOCUMENT_UNPUBLISHED if after is None else AuditAction.DOCUMENT_PUBLISHED
    record(
        session,
        actor,
        action,
        (ResourceType.DOCUMENT, row.id),
        subject_id=None if row.user_id == actor.user_id else row.user_id,
        details={"version": before if after is None else after},
    )
    await session.flush()


async def _flag(session: AsyncSession, row: DocumentRow, number: int, *, published: bool) -> None:
    """Set the flag of a version and of all its passages."""
    is_the_version = is_version(DocumentId(row.id), number)
    version = await _locked_version(session, row, number)
    await session.exec(
        update(DocumentVersionRow)
        .where(is_the_version)
        .values(published=published)
        .execution_options(synchronize_session=False)
    )
    for first in range(0, version.passage_count if version else 0, _PASSAGES_AT_ONCE):
        await session.exec(
            update(PassageRow)
            .where(
                col(PassageRow.document_id) == row.id,
                col(PassageRow.version) == number,
                col(PassageRow.position).between(first, first + _PASSAGES_AT_ONCE - 1),
            )
            .values(published=published)
            .execution_options(synchronize_session=False)
        )


async def _locked_version(
    session: AsyncSession, row: DocumentRow, number: int
) -> DocumentVersionRow | None:
    query = light().where(is_version(DocumentId(row.id), number)).with_for_update()
    return (await session.exec(query)).first()
