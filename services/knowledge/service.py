"""Documents as users manage them: create, list, find by title, rename, delete.

Versions are in `versions.py`, publishing in `publication.py`, and ingestion in `ingestion.py`.
"""

import asyncio
from typing import Final
from uuid import UUID

from sqlalchemy import Uuid, bindparam, delete, func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.audit import AuditAction, ResourceType
from schema.ids import DocumentId, new_id
from schema.knowledge import (
    ChangeDocumentRequest,
    Document,
    DocumentFilter,
    DocumentScope,
    DocumentSort,
    OwnedDocument,
    OwnedDocumentFilter,
    PublicationStatus,
)
from schema.pages import Page, PageRequest
from schema.result import Err, Ok, Result
from schema.tables import DocumentRow, DocumentVersionRow
from services.audit import record
from services.auth.accounts import AccountCache
from services.database import Database
from services.database.connections import lock
from services.database.queries import Listing, Order, by_id, contains_searched, equals
from services.knowledge.rows import document_from_row, owned_document_from_row, shown, shown_locked
from services.knowledge.versions import TitledSubmission, identity_of, store_version
from services.resources import (
    Conflict,
    LimitReached,
    Unreachable,
    Versions,
    create_once,
    touch,
    version_matches,
    why_unreachable,
)

_ORDERS: Final = {
    DocumentSort.CREATED: Order("createdAt", (col(DocumentRow.id),)),
    DocumentSort.CREATED_LAST: Order("-createdAt", (col(DocumentRow.id),), descending=True),
    DocumentSort.UPDATED: Order("updatedAt", (col(DocumentRow.updated_at), col(DocumentRow.id))),
    DocumentSort.UPDATED_LAST: Order(
        "-updatedAt", (col(DocumentRow.updated_at), col(DocumentRow.id)), descending=True
    ),
    DocumentSort.TITLE: Order("title", (col(DocumentRow.title), col(DocumentRow.id))),
    DocumentSort.TITLE_LAST: Order(
        "-title", (col(DocumentRow.title), col(DocumentRow.id)), descending=True
    ),
}
_DOCUMENT: Final = by_id(DocumentRow)
_IS_PUBLISHED: Final = col(DocumentRow.published_version).is_not(None)
_DOCUMENTS: Final = Listing(
    select(DocumentRow),
    {
        **equals(col(DocumentRow.user_id)),
        "scope": {
            DocumentScope.OWN: col(DocumentRow.user_id) == bindparam("actor_id", type_=Uuid),
            DocumentScope.PUBLISHED: _IS_PUBLISHED,
        },
        "status": {
            PublicationStatus.PUBLISHED: _IS_PUBLISHED,
            PublicationStatus.DRAFT: ~_IS_PUBLISHED,
        },
        "search": contains_searched(DocumentRow.title),
    },
)


class KnowledgeService:
    """Manages the documents of users. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, accounts: AccountCache) -> None:
        self._database = database
        self._accounts = accounts

    async def create(
        self, actor: Actor, submission: TitledSubmission, *, key: str | None
    ) -> Result[Document, LimitReached | Conflict]:
        """Create a document whose first version is to be ingested.

        Idempotency: retrying with the same key and bytes returns the document created before.
        """
        limit = (await self._accounts.entitlements_of(actor.user_id)).max_documents
        identity = await asyncio.to_thread(identity_of, submission)
        row = DocumentRow(id=new_id(), user_id=actor.user_id, title=submission.title)

        async def create(session: AsyncSession) -> Result[Document, LimitReached]:
            if await _count_locked(session, actor) >= limit:
                return Err(LimitReached(limit))
            version = await _store(session, row, submission)
            return Ok(document_from_row(row, version, actor))

        return await create_once(
            self._database,
            actor,
            key,
            request=identity,
            resource_id=row.id,
            create=create,
            find=lambda earlier: self.get(actor, DocumentId(UUID(earlier))),
        )

    async def list_documents(
        self, actor: Actor, chosen: DocumentFilter, page: PageRequest, *, sort: DocumentSort
    ) -> Page[Document]:
        """Return the documents that match the filter, in the given order.

        Errors: InvalidCursorError.
        """
        wanted = {**vars(chosen), "actor_id": actor.user_id}
        async with self._database.statements(actor) as connection:
            rows = await _DOCUMENTS.read(connection, page, _ORDERS[sort], wanted)
            documents = await shown(connection, actor, rows.items, document_from_row)
        return Page(documents, rows.next_cursor)

    async def list_all(
        self, actor: Actor, chosen: OwnedDocumentFilter, page: PageRequest, *, sort: DocumentSort
    ) -> Page[OwnedDocument]:
        """Return documents of all users that the actor may see; administrators see all.

        Errors: InvalidCursorError.
        """
        async with self._database.statements(actor) as connection:
            rows = await _DOCUMENTS.read(connection, page, _ORDERS[sort], vars(chosen))
            documents = await shown(connection, actor, rows.items, owned_document_from_row)
        return Page(documents, rows.next_cursor)

    async def get(self, actor: Actor, document_id: DocumentId) -> Result[Document, Unreachable]:
        """Return a document that is the actor's own or published."""
        async with self._database.statements(actor) as connection:
            rows = await _DOCUMENT.all(connection, id=document_id)
            documents = await shown(connection, actor, rows, document_from_row)
        if not documents:
            return Err(await why_unreachable(self._database, DocumentRow, document_id))
        return Ok(documents[0])

    async def change(
        self,
        actor: Actor,
        document_id: DocumentId,
        request: ChangeDocumentRequest,
        *,
        versions: Versions,
    ) -> Result[Document, Conflict | Unreachable]:
        """Rename a document if its version is one of `versions`."""
        async with self._database.transaction(actor) as session:
            # Locking needs the right to update, which only the owner has.
            row = await session.get(DocumentRow, document_id, with_for_update=True)
            if row is not None:
                if not version_matches(row.version, versions):
                    return Err(Conflict.VERSION_CHANGED)
                row.title = request.title
                touch(row)
                await session.flush()
                return Ok(await shown_locked(session, actor, row))
        return Err(await why_unreachable(self._database, DocumentRow, document_id))

    async def delete(self, actor: Actor, document_id: DocumentId) -> Result[None, Unreachable]:
        """Delete a document with all its versions; a running ingestion ends by itself."""
        async with self._database.transaction(actor) as session:
            row = await session.get(DocumentRow, document_id, with_for_update=True)
            if row is not None:
                await session.exec(delete(DocumentRow).where(col(DocumentRow.id) == document_id))
                resource = (ResourceType.DOCUMENT, document_id)
                record(session, actor, AuditAction.DOCUMENT_DELETED, resource)
                return Ok(None)
        return Err(await why_unreachable(self._database, DocumentRow, document_id))


async def _count_locked(session: AsyncSession, actor: Actor) -> int:
    """Return how many documents the actor has; none is added before the transaction ends."""
    await lock(session, "documents", of=actor.user_id)
    query = select(func.count()).where(col(DocumentRow.user_id) == actor.user_id)
    return (await session.exec(query)).one()


async def _store(
    session: AsyncSession, row: DocumentRow, submission: TitledSubmission
) -> DocumentVersionRow:
    session.add(row)
    await session.flush()
    return await store_version(session, row, submission)
