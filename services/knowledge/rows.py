"""Rows of documents and versions, and what clients get of them.

A version's row holds its source and its text, megabytes each: `light` leaves both in the database.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias, TypeVar

from sqlalchemy import ARRAY, Integer, Uuid, bindparam, column, func
from sqlalchemy.orm import defer
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from schema.actors import Actor, ActorType
from schema.ids import DocumentId, UserId
from schema.ingestion import DocumentVersionReference, IngestionProgress
from schema.knowledge import (
    Document,
    DocumentText,
    DocumentVersion,
    Ingestion,
    IngestionStatus,
    OwnedDocument,
    PublicationStatus,
)
from schema.tables import DocumentRow, DocumentVersionRow
from services.database import Connection
from services.database.queries import CompiledQuery

WITHOUT_SOURCE: Final = defer(DocumentVersionRow.source, raiseload=True)  # type: ignore[arg-type]
_WITHOUT_TEXT: Final = defer(DocumentVersionRow.content, raiseload=True)  # type: ignore[arg-type]


def light() -> SelectOfScalar[DocumentVersionRow]:
    """Return the query of versions without source and text, which can't be read from its rows."""
    return select(DocumentVersionRow).options(WITHOUT_SOURCE, _WITHOUT_TEXT)


def is_version(document_id: Any, number: Any) -> Any:  # noqa: ANN401 -- values or parameters
    """Return the condition that a row is this version's."""
    is_number = col(DocumentVersionRow.number) == number
    return (col(DocumentVersionRow.document_id) == document_id) & is_number


def latest_shown(row: DocumentRow, actor: Actor) -> int | None:
    """Return the number of the latest version that this actor may see.

    Drafts are visible to their owner only; None if another user's document is unpublished.
    """
    if row.user_id == actor.user_id or actor.type is ActorType.ADMIN:
        return row.latest_version
    return row.published_version


def document_from_row(row: DocumentRow, latest: DocumentVersionRow, actor: Actor) -> Document:
    """Return the document that the row holds, `latest` being the version that the actor sees."""
    is_published = row.published_version is not None
    return Document(
        id=DocumentId(row.id),
        title=row.title,
        status=PublicationStatus.PUBLISHED if is_published else PublicationStatus.DRAFT,
        own=row.user_id == actor.user_id,
        content_type=latest.content_type,
        latest_version=latest.number,
        published_version=row.published_version,
        ingestion=_ingestion_from_row(latest),
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def owned_document_from_row(
    row: DocumentRow, latest: DocumentVersionRow, actor: Actor
) -> OwnedDocument:
    """Return the document with its owner."""
    document = document_from_row(row, latest, actor)
    return OwnedDocument(**vars(document), user_id=UserId(row.user_id))


def version_from_row(row: DocumentVersionRow) -> DocumentVersion:
    """Return the version that the row holds."""
    return DocumentVersion.model_validate(row, from_attributes=True)


def text_from_row(row: DocumentVersionRow) -> DocumentText:
    """Return the version with its text."""
    return DocumentText.model_validate(row, from_attributes=True)


def reference_from_row(row: DocumentVersionRow) -> DocumentVersionReference:
    """Return the reference by which workflows identify the version."""
    return DocumentVersionReference.model_validate(row, from_attributes=True)


def progress_from_row(row: DocumentVersionRow) -> IngestionProgress:
    """Return the progress of the version's ingestion."""
    return IngestionProgress(
        status=IngestionStatus(row.status), passages=row.passage_count, embedded=row.embedded_count
    )


def _ingestion_from_row(row: DocumentVersionRow) -> Ingestion:
    return Ingestion.model_validate(row, from_attributes=True)


D = TypeVar("D", bound=Document)
Shape: TypeAlias = Callable[[DocumentRow, DocumentVersionRow, Actor], D]

_WANTED: Final = (
    func.unnest(bindparam("ids", type_=ARRAY(Uuid)), bindparam("numbers", type_=ARRAY(Integer)))
    .table_valued(column("document_id", Uuid), column("number", Integer), name="wanted")
    .render_derived()
)
_VERSIONS: Final = CompiledQuery(
    light().join(
        _WANTED,
        (col(DocumentVersionRow.document_id) == _WANTED.c.document_id)
        & (col(DocumentVersionRow.number) == _WANTED.c.number),
    )
)


async def shown(
    connection: Connection, actor: Actor, rows: Sequence[DocumentRow], shape: Shape[D]
) -> list[D]:
    """Return the documents in the order of their rows.

    Documents withdrawn or deleted since the rows were read are left out.
    """
    ids = [row.id for row in rows]
    numbers = [latest_shown(row, actor) for row in rows]
    found = await _VERSIONS.all(connection, ids=ids, numbers=numbers) if rows else []
    latest = {version.document_id: version for version in found}
    return [shape(row, latest[row.id], actor) for row in rows if row.id in latest]


async def shown_locked(session: AsyncSession, actor: Actor, row: DocumentRow) -> Document:
    """Return a document that is locked, so that its latest version can't be gone."""
    latest = latest_shown(row, actor) or row.latest_version
    query = light().where(is_version(DocumentId(row.id), latest))
    return document_from_row(row, (await session.exec(query)).one(), actor)
