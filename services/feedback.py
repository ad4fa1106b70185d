"""Feedback on answers: users give it on their own, administrators read all of it.

What a user wrote is content: reading it is recorded in the audit log, for each user.
"""

from enum import StrEnum
from typing import Final

from sqlmodel import col, select

from schema.actors import Actor
from schema.audit import AuditAction, ResourceType
from schema.feedback import Feedback, FeedbackFilter, GiveFeedbackRequest, GivenFeedback
from schema.ids import MessageId, new_id
from schema.pages import Page, PageRequest
from schema.result import Err, Ok, Result
from schema.tables import FeedbackRow, MessageRow
from services.audit import record_plainly
from services.database import Database
from services.database.queries import (
    AttributeRow,
    Listing,
    Order,
    created_within,
    equals,
    ids_within,
)
from services.resources import Unreachable, why_unreachable

# Model and prompt are kept with it: reports filter by them.
_GIVE: Final = """
INSERT INTO feedback
    (id, message_id, chat_id, turn_id, user_id, rating, reason, text, model, prompt_version)
SELECT $3, messages.id, messages.chat_id, turns.id, messages.user_id, $4, $5, $6, coalesce(
        (SELECT model FROM steps WHERE turn_id = turns.id ORDER BY step DESC LIMIT 1), turns.model
    ), turns.prompt ->> 'version'
FROM messages JOIN turns ON turns.id = messages.turn_id
WHERE messages.id = $1 AND messages.user_id = $2 AND messages.role = 'assistant'
ON CONFLICT (message_id) DO UPDATE SET rating = excluded.rating, reason = excluded.reason,
    text = excluded.text, updated_at = now()
RETURNING *
"""
_WITHDRAW: Final = "DELETE FROM feedback WHERE message_id = $1 AND user_id = $2"
_IS_OWN: Final = "SELECT true FROM messages WHERE id = $1 AND user_id = $2"

_NEWEST_FIRST: Final = Order("-createdAt", (col(FeedbackRow.id),), descending=True)
_FEEDBACK: Final = Listing(
    select(FeedbackRow),
    {
        **equals(
            *(col(FeedbackRow.rating), col(FeedbackRow.model)),
            *(col(FeedbackRow.prompt_version), col(FeedbackRow.user_id)),
        ),
        **created_within(FeedbackRow),
    },
)


class FeedbackRefusal(StrEnum):
    """Why a message gets no feedback."""

    NOT_AN_ANSWER = "not_an_answer"


class FeedbackService:
    """Feedback on answers. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def give(
        self, actor: Actor, message_id: MessageId, request: GiveFeedbackRequest
    ) -> Result[Feedback, FeedbackRefusal | Unreachable]:
        """Store feedback on an answer of the actor's own, in place of any earlier one."""
        async with self._database.statements(actor) as connection:
            given = await connection.fetchrow(
                _GIVE,
                message_id,
                actor.user_id,
                new_id(),
                request.rating,
                request.reason,
                request.text,
                record_class=AttributeRow,
            )
            is_own = given is not None or await connection.fetchrow(
                _IS_OWN, message_id, actor.user_id
            )
        if given is not None:
            return Ok(Feedback.model_validate(given))
        if is_own:
            return Err(FeedbackRefusal.NOT_AN_ANSWER)
        return Err(await why_unreachable(self._database, MessageRow, message_id))

    async def withdraw(self, actor: Actor, message_id: MessageId) -> Result[None, Unreachable]:
        """Delete the feedback on an answer of the actor's own, if there is any."""
        async with self._database.statements(actor) as connection:
            await connection.execute(_WITHDRAW, message_id, actor.user_id)
            if await connection.fetchrow(_IS_OWN, message_id, actor.user_id):
                return Ok(None)
        return Err(await why_unreachable(self._database, MessageRow, message_id))

    async def list_all(
        self, actor: Actor, chosen: FeedbackFilter, page: PageRequest
    ) -> Page[GivenFeedback]:
        """Return the feedback of all users, newest first; record whose words were read.

        Errors: InvalidCursorError.
        """
        wanted = {**vars(chosen), **ids_within(chosen)}
        async with self._database.statements(actor) as connection:
            rows = await _FEEDBACK.read(connection, page, _NEWEST_FIRST, wanted)
            for row in rows.items:
                if row.text is not None or row.reason is not None:
                    await record_plainly(
                        connection,
                        actor,
                        AuditAction.FEEDBACK_READ,
                        (ResourceType.MESSAGE, row.message_id),
                        subject_id=row.user_id,
                    )
        return rows.map(GivenFeedback.model_validate)
