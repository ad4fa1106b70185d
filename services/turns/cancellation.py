"""Owns asking a turn to stop: the wish is stored, so that it holds whatever else is down."""

from schema.actors import Actor
from schema.ids import TurnId
from schema.result import Err, Ok, Result
from schema.tables import TurnRow
from schema.tables.columns import utc_now
from schema.turns import Turn, TurnReference, TurnStatus
from services.database import Database
from services.resources import Unreachable, why_unreachable
from services.turns.rows import reference_from_row, turn_from_row


class TurnCancellation:
    """Takes the wish to stop. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def request(
        self, actor: Actor, turn_id: TurnId
    ) -> Result[tuple[Turn, TurnReference], Unreachable]:
        """Write down that the turn is to stop; one that has ended stays as it is.

        Idempotency: the first wish counts.
        """
        async with self._database.transaction(actor) as session:
            row = await session.get(TurnRow, turn_id, with_for_update=True)
            if row is not None and not TurnStatus(row.status).is_final:
                row.cancel_requested_at = row.cancel_requested_at or utc_now()
                await session.flush()
        if row is None:
            return Err(await why_unreachable(self._database, TurnRow, turn_id))
        return Ok((turn_from_row(row), reference_from_row(row)))
