"""Owns how many memories a user may have: the limit of the plan, and counting under a lock."""

from dataclasses import dataclass

from sqlalchemy import func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.tables import MemoryRow
from services.auth.standing import Standings
from services.database.locks import lock


@dataclass(frozen=True, slots=True)
class LimitReached:
    """The refusal of one more memory than the plan allows."""

    limit: int


async def limit_of(standings: Standings, actor: Actor) -> int:
    """Return how many memories the actor's plan allows; none to someone who is gone."""
    standing = await standings.of(actor.user_id)
    return 0 if standing is None else standing.entitlements.max_memories


async def count_locked(session: AsyncSession, actor: Actor) -> int:
    """Return how many memories the actor has; nobody adds one before the transaction ends.

    Those rejected count too: they are kept, so that they are not suggested again.
    """
    await lock(session, "memories", of=actor.user_id)
    # A statement of its own, behind the lock: only then does it see what the lock was waiting for.
    query = select(func.count()).where(col(MemoryRow.user_id) == actor.user_id)
    return (await session.exec(query)).one()
