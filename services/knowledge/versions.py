"""Owns the versions of a document: added and read, never changed."""

import asyncio
from typing import Final

from sqlalchemy import Integer, Uuid, bindparam, func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import SERVICE, Actor
from schema.ids import DocumentId
from schema.knowledge import DocumentText, DocumentVersion
from schema.pages import Page, PageRequest
from schema.result import Err, Ok, Result
from schema.tables import DocumentRow, DocumentVersionRow
from schema.tables.columns import utc_now
from services.database import Database
from services.database.queries import CompiledQuery, Listing, Order, by_id
from services.knowledge.refusals import VersionRefusal
from services.knowledge.rows import (
    WITHOUT_SOURCE,
    is_version,
    light,
    text_from_row,
    version_from_row,
)
from services.knowledge.submissions import Submission, identity_of, store_version
from services.resources import Conflict, Unreachable, create_once, why_unreachable

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
    """Keeps the versions of documents. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(
        self, actor: Actor, document_id: DocumentId, submission: Submission, *, key: str | None
    ) -> Result[DocumentVersion, Conflict | Unreachable]:
        """Add a version that is to be ingested; what is published stays so.

        Idempotency: the same key with the same bytes gives the version that it made before.
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
        # The policies hide drafts of others, so that they alone can't tell them from nothing.
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
