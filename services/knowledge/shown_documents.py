"""Owns reading documents as an actor sees them: each with what is its latest version to them."""

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias, TypeVar

from sqlalchemy import ARRAY, Integer, Uuid, bindparam, column, func
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.ids import DocumentId
from schema.knowledge import Document
from schema.tables import DocumentRow, DocumentVersionRow
from services.database import Connection
from services.database.queries import CompiledQuery
from services.knowledge.rows import document_from_row, is_version, latest_shown, light

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

    What has been withdrawn or deleted since the rows were read is left out.
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
