"""Requests to stop turns, and the ends of those that had not begun."""

from schema.actors import Actor
from schema.ids import TurnId
from schema.result import Err, Ok, Result
from schema.tables import TurnRow
from schema.tables.columns import utc_now
from schema.turns import Turn, TurnReference, TurnStatus
from services.database import Database
from services.events.snapshots import ending_events
from services.events.writer import EventWriter, turn_news
from services.resources import Unreachable, why_unreachable
from services.turns.ending import report_end
from services.turns.rows import reference_from_row, turn_from_row


class TurnCancellation:
    """Stores requests to cancel, so that they survive outages of everything else.

    Errors: DatabaseUnavailableError.
    """

    def __init__(self, database: Database, events: EventWriter) -> None:
        self._database = database
        self._events = events

    async def request(
        self, actor: Actor, turn_id: TurnId
    ) -> Result[tuple[Turn, TurnReference], Unreachable]:
        """Request that the turn is cancelled; one that has ended stays as it is.

        Idempotency: the first request counts.
        """
        async with self._database.transaction(actor) as session:
            row = await session.get(TurnRow, turn_id, with_for_update=True)
            if row is not None and not TurnStatus(row.status).is_final:
                row.cancel_requested_at = row.cancel_requested_at or utc_now()
                await session.flush()
        if row is None:
            return Err(await why_unreachable(self._database, TurnRow, turn_id))
        return Ok((turn_from_row(row), reference_from_row(row)))

    async def publish_cancelled(self, actor: Actor, turn_id: TurnId) -> None:
        """Publish the end of a turn that was cancelled before it ran."""
        async with self._database.transaction(actor) as session:
            turn = await session.get(TurnRow, turn_id)
        if turn is not None:
            report_end(turn, steps=0, model_attempts=0)
            news = turn_news(reference_from_row(turn), TurnStatus.CANCELLED)
            await self._events.close(turn_id, ending_events(turn, None), news=news)
