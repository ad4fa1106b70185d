"""Owns telling why a row can't be reached: it is not there, or it is another's."""

from typing import Any
from uuid import UUID

from sqlmodel import SQLModel, col, select

from schema.actors import SERVICE
from services.database import Database
from services.refusals import Unreachable


async def why_unreachable(database: Database, table: type[SQLModel], row_id: UUID) -> Unreachable:
    """Say whether a row that the policies hide is there at all."""
    key: Any = table.id  # type: ignore[attr-defined]  # every table asked about has an id
    async with database.transaction(SERVICE) as session:
        found = (await session.exec(select(key).where(col(key) == row_id))).first()
    return Unreachable.MISSING if found is None else Unreachable.FORBIDDEN
