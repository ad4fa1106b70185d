"""Owns counting memories, so that nobody makes one meanwhile."""

from sqlalchemy import func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.tables import MemoryRow
from services.database.connections import lock


async def count_locked(session: AsyncSession, actor: Actor) -> int:
    """Return how many memories the actor has; nobody adds one before the transaction ends.

    Those rejected count too: they are kept, so that they are not suggested again.
    """
    await lock(session, "memories", of=actor.user_id)
    # A statement of its own, behind the lock: only then does it see what the lock was waiting for.
    query = select(func.count()).where(col(MemoryRow.user_id) == actor.user_id)
    return (await session.exec(query)).one()
