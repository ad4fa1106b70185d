"""Owns reading documents as an actor sees them: each with what is its latest version to them."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from sqlalchemy import tuple_
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.knowledge import Document
from schema.tables import DocumentRow, DocumentVersionRow
from services.knowledge.rows import document_from_row, latest_shown, light

D = TypeVar("D", bound=Document)
Shape = Callable[[DocumentRow, DocumentVersionRow, Actor], D]


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
    places = [(row.id, latest_shown(row, actor)) for row in rows]
    is_latest = tuple_(col(DocumentVersionRow.document_id), col(DocumentVersionRow.number))
    query = light().where(is_latest.in_(places))
    found = (await session.exec(query)).all() if places else []
    return {version.document_id: version for version in found}
