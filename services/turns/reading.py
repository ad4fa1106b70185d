"""Owns reading one turn: the turn by itself, and its messages; inspection.py shows it whole."""

from typing import Final

from sqlalchemy import Uuid, bindparam
from sqlmodel import col, select

from schema.actors import Actor
from schema.chats import Message
from schema.ids import TurnId
from schema.result import Err, Ok, Result
from schema.tables import MessageRow, TurnRow
from schema.turns import Turn
from services.chats.rows import message_from_row
from services.database import Database
from services.database.queries import CompiledQuery, by_id
from services.resources import Unreachable, why_unreachable
from services.turns.rows import turn_from_row

_TURN: Final = by_id(TurnRow)
_MESSAGES: Final = CompiledQuery(
    select(MessageRow)
    .where(col(MessageRow.turn_id) == bindparam("turn_id", type_=Uuid))
    .order_by(col(MessageRow.id))
)


class TurnReading:
    """Shows turns. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, actor: Actor, turn_id: TurnId) -> Result[Turn, Unreachable]:
        """Return one turn."""
        async with self._database.statements(actor) as connection:
            row = await _TURN.first(connection, id=turn_id)
        if row is None:
            return Err(await why_unreachable(self._database, TurnRow, turn_id))
        return Ok(turn_from_row(row))

    async def list_messages(self, actor: Actor, turn_id: TurnId) -> list[Message]:
        """Return the messages of a turn: the question, and the answer once there is one."""
        async with self._database.statements(actor) as connection:
            rows = await _MESSAGES.all(connection, turn_id=turn_id)
        return [message_from_row(row) for row in rows]
