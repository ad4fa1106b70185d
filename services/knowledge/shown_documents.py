"""Owns reading documents as an actor sees them: each with what is its latest version to them."""

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias, TypeVar

from sqlalchemy import ARRAY, Integer, Uuid, bindparam, column, func
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.knowledge import Document
from schema.tables import DocumentRow, DocumentVersionRow
from services.knowledge.rows import document_from_row, latest_shown, light

D = TypeVar("D", bound=Document)
Shape: TypeAlias = Callable[[DocumentRow, DocumentVersionRow, Actor], D]

_WANTED: Final = (
    func.unnest(bindparam("ids", type_=ARRAY(Uuid)), bindparam("numbers", type_=ARRAY(Integer)))
    .table_valued(column("document_id", Uuid), column("number", Integer), name="wanted")
    .render_derived()
)
# Made once: to put it together takes as long as to ask it.
_VERSIONS: Final = light().join(
    _WANTED,
    (col(DocumentVersionRow.document_id) == _WANTED.c.document_id)
    & (col(DocumentVersionRow.number) == _WANTED.c.number),
)


async def shown(
    session: AsyncSession, actor: Actor, rows: Sequence[DocumentRow], shape: Shape[D]
) -> list[D]:
    """Return the documents in the order of their rows.

    What has been withdrawn or deleted since the rows were read is left out.
    """
    latest = await _latest_versions(session, actor, rows)
    return [shape(row, latest[row.id], actor) for row in rows if row.id in latest]


async def shown_one(session: AsyncSession, actor: Actor, row: DocumentRow) -> Document | None:
    """Return one document, or None where it has been withdrawn or deleted since."""
    documents = await shown(session, actor, [row], document_from_row)
    return documents[0] if documents else None


async def _latest_versions(
    session: AsyncSession, actor: Actor, rows: Sequence[DocumentRow]
) -> dict[object, DocumentVersionRow]:
    wanted = {
        "ids": [row.id for row in rows],
        "numbers": [latest_shown(row, actor) for row in rows],
    }
    found = (await session.exec(_VERSIONS, params=wanted)).all() if rows else []
    return {version.document_id: version for version in found}
