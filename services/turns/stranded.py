"""Finds what outages leave behind: turns without a running workflow, and charges of dead calls.

A chat, turn or charge that fails is left to the next sweep, and holds up no other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, exists
from sqlalchemy.orm import aliased
from sqlmodel import col, select

from schema.actors import SERVICE
from schema.ids import ChatId, TurnId
from schema.tables import TurnRow
from schema.tables.columns import utc_now
from schema.turns import TurnReference, TurnStatus
from services.database import Database
from services.shielding import each_alone
from services.turns.ending import activate_next
from services.turns.rows import reference_from_row

_BATCH: Final = 500
_UNFINISHED: Final = (TurnStatus.QUEUED, TurnStatus.RUNNING, TurnStatus.AWAITING_APPROVAL)

# No attempt at a call takes as long as this, unless its turn is still running.
_LONGEST_CALL: Final = timedelta(minutes=20)

_DEAD_CHARGES: Final = """
FROM ledger WHERE status = 'open' AND created_at < now() - $1::interval
AND NOT EXISTS (SELECT FROM turns WHERE turns.id = ledger.turn_id
                AND turns.status IN ('queued', 'running', 'awaiting_approval'))
"""
_IS_ANY_CHARGE_DEAD: Final = f"SELECT EXISTS (SELECT {_DEAD_CHARGES})"
_FIND_DEAD_CHARGES: Final = f"SELECT id {_DEAD_CHARGES} LIMIT {_BATCH}"
_LOSE_CHARGE: Final = """
UPDATE ledger SET status = 'lost', settled_at = now() WHERE id = $1 AND status = 'open'
"""


_UNFINISHED_NOW: Final = """
SELECT count(*) FILTER (WHERE status = 'queued') AS queued,
       count(*) FILTER (WHERE status = 'running') AS running,
       count(*) FILTER (WHERE status = 'awaiting_approval') AS awaiting_approval,
       coalesce(extract(epoch FROM now() - min(created_at) FILTER (
           WHERE status = 'queued' AND active)), 0)::float8 AS unstarted_s,
       (SELECT count(*) FROM turns AS waiting JOIN tool_calls ON tool_calls.turn_id = waiting.id
        WHERE waiting.status = 'awaiting_approval' AND tool_calls.status = 'awaiting_approval'
          AND tool_calls.decision IS NULL) AS approvals
FROM turns WHERE status IN ('queued', 'running', 'awaiting_approval')
"""


class UnfinishedTurns(NamedTuple):
    """How many turns are in which status, and how many tool calls await approval.

    Units: `unstarted_s` is the age in seconds of the oldest turn that holds its chat and has not
    begun; 0 if there is none.
    """

    queued: int
    running: int
    awaiting_approval: int
    unstarted_s: float
    approvals: int


@dataclass(frozen=True, slots=True)
class ActiveTurn:
    """A turn that holds its chat."""

    reference: TurnReference
    has_begun: bool
    is_to_stop: bool


class ActiveTurns(NamedTuple):
    """Turns that hold their chat, oldest first; `after` is where further ones follow, if any."""

    turns: tuple[ActiveTurn, ...]
    after: TurnId | None


class StrandedTurnSearch:
    """Searches the turns of all users, as the service.

    Errors: DatabaseUnavailableError, and in an outage whatever failed last.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def active(self, *, older_than: timedelta, after: TurnId | None = None) -> ActiveTurns:
        """Return turns that hold their chat and are not finished, a page at a time."""
        query = (
            select(TurnRow)
            .where(
                col(TurnRow.active),
                col(TurnRow.status).in_(_UNFINISHED),
                col(TurnRow.created_at) < utc_now() - older_than,
            )
            # IDs are in the order of time, and unlike it unique.
            .order_by(col(TurnRow.id))
            .limit(_BATCH)
        )
        if after is not None:
            query = query.where(col(TurnRow.id) > after)
        async with self._database.transaction(SERVICE) as session:
            rows = (await session.exec(query)).all()
        turns = (
            ActiveTurn(
                reference=reference_from_row(row),
                has_begun=row.status != TurnStatus.QUEUED,
                is_to_stop=row.cancel_requested_at is not None,
            )
            for row in rows
        )
        return ActiveTurns(tuple(turns), TurnId(rows[-1].id) if len(rows) == _BATCH else None)

    async def unfinished(self) -> UnfinishedTurns:
        """Return how many turns have not ended, for metrics."""
        async with self._database.statements(SERVICE) as connection:
            (found,) = await connection.fetch(_UNFINISHED_NOW)
        return UnfinishedTurns(*found)

    async def is_any_waiting(self, *, older_than: timedelta) -> bool:
        """Whether any turn waits in a chat that no turn holds."""
        query = select(TurnRow.id).where(*_waiting(older_than)).limit(1)
        async with self._database.transaction(SERVICE) as session:
            return (await session.exec(query)).first() is not None

    async def activate_waiting(self, *, older_than: timedelta) -> Sequence[TurnReference]:
        """Give each chat that no turn holds to the oldest turn that waits in it."""
        query = select(TurnRow.chat_id).where(*_waiting(older_than)).distinct().limit(_BATCH)
        async with self._database.transaction(SERVICE) as session:
            chat_ids = (await session.exec(query)).all()
        activated = await each_alone(map(ChatId, chat_ids), self._activate)
        return [turn for turn in activated if turn is not None]

    async def _activate(self, chat_id: ChatId) -> TurnReference | None:
        async with self._database.statements(SERVICE, locking=chat_id) as connection:
            return await activate_next(connection, chat_id)

    async def is_any_charge_dead(self) -> bool:
        """Whether a call of a turn that has ended, or is deleted, still reserves what it may cost.

        Its process died, and so did its workflow, e.g. by an operator's hand.
        """
        async with self._database.statements(SERVICE) as connection:
            return bool(await connection.fetchval(_IS_ANY_CHARGE_DEAD, _LONGEST_CALL))

    async def lose_dead_charges(self) -> None:
        """Settle such calls by what was last recorded."""
        async with self._database.statements(SERVICE) as connection:
            dead = await connection.fetch(_FIND_DEAD_CHARGES, _LONGEST_CALL)
        await each_alone([row["id"] for row in dead], self._lose)

    async def _lose(self, charge_id: UUID) -> None:
        async with self._database.statements(SERVICE) as connection:
            await connection.execute(_LOSE_CHARGE, charge_id)


def _waiting(older_than: timedelta) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions of a turn that waits in a chat that no turn holds."""
    holder = aliased(TurnRow)
    return (
        ~exists().where(col(holder.chat_id) == col(TurnRow.chat_id), col(holder.active)),
        ~col(TurnRow.active),
        col(TurnRow.status) == TurnStatus.QUEUED,
        col(TurnRow.created_at) < utc_now() - older_than,
    )
