"""Erases what a deleted turn leaves outside the database: its stream in Redis.

Requested in the transaction that deletes the turn, so that no crash between the two leaves content
behind; done at once, or by the sweep if Redis was unavailable.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import delete, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import SERVICE
from schema.ids import TurnId
from schema.tables import ErasureRow, LedgerRow, TurnRow
from schema.tables.columns import utc_now
from schema.turns import TurnStatus
from services.database import Database

_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class DeletedTurns:
    """What deleted turns leave outside the database: streams, and workflows that run."""

    all: tuple[TurnId, ...] = ()
    unfinished: tuple[TurnId, ...] = ()


async def ask_for_erasure(session: AsyncSession, of: Any) -> DeletedTurns:  # noqa: ANN401 -- a condition of SQLAlchemy
    """Request erasure of the turns that match the condition, and return them."""
    turns = (await session.exec(select(TurnRow.id, TurnRow.status).where(of))).all()
    turn_ids = tuple(TurnId(turn_id) for turn_id, _ in turns)
    if turn_ids:
        # The cost of their model calls so far stays; it will not be settled later.
        underway = update(LedgerRow).where(
            col(LedgerRow.turn_id).in_(turn_ids), col(LedgerRow.status) == "open"
        )
        await session.exec(underway.values(status="lost", settled_at=utc_now()))
        await request_erasure(session, turn_ids)
    unfinished = (TurnId(id_) for id_, status in turns if not TurnStatus(status).is_final)
    return DeletedTurns(all=turn_ids, unfinished=tuple(unfinished))


async def request_erasure(session: AsyncSession, turn_ids: Sequence[TurnId]) -> None:
    """Request erasure of the streams of turns."""
    wanted = insert(ErasureRow).on_conflict_do_nothing()
    await session.exec(wanted, params=[{"turn_id": turn_id} for turn_id in turn_ids])


class Erasure:
    """Erases the streams of deleted turns. Errors: DatabaseUnavailableError."""

    def __init__(
        self, database: Database, erase_stream: Callable[[TurnId], Awaitable[bool]]
    ) -> None:
        self._database = database
        self._erase_stream = erase_stream

    async def erase(self, turn_ids: Sequence[TurnId]) -> bool:
        """Erase the streams of deleted turns; False if some are left for later.

        The newest come first: only their streams may still exist. A caller doesn't wait for all
        of a long history, nor while Redis is unavailable: the first failure ends the loop.
        """
        newest = sorted(turn_ids, reverse=True)[:_AT_ONCE]
        erased: list[TurnId] = []
        for turn_id in newest:
            if not await self._erase_stream(turn_id):
                break
            erased.append(turn_id)
        if erased:
            async with self._database.transaction(SERVICE) as session:
                done = delete(ErasureRow).where(col(ErasureRow.turn_id).in_(erased))
                await session.exec(done)
        return len(erased) == len(turn_ids)

    async def pending(self, *, limit: int = _AT_ONCE) -> list[TurnId]:
        """Return turns whose streams are still to be erased, the newest first."""
        query = select(ErasureRow.turn_id).order_by(col(ErasureRow.turn_id).desc()).limit(limit)
        async with self._database.transaction(SERVICE) as session:
            return [TurnId(turn_id) for turn_id in (await session.exec(query)).all()]
