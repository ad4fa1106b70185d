"""The messages of a chat, a tree: its branches are listed, chosen and deleted.

A branch is a message with all that it follows. Edited questions and regenerated answers are
siblings: they follow the same message.
"""

from dataclasses import replace
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Uuid, and_, bindparam, delete, or_, tuple_, update
from sqlalchemy import select as select_columns
from sqlalchemy.orm import aliased
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from schema.actors import Actor
from schema.audit import AuditAction, ResourceType
from schema.chats import (
    ALL_BRANCHES,
    Chat,
    ChatSummary,
    Message,
    MessageFilter,
    MessageSort,
)
from schema.ids import ChatId, MessageId, TurnId
from schema.pages import Page, PageRequest
from schema.result import Err, Ok, Result
from schema.tables import ChatRow, ChatSummaryRow, MessageRow, StepRow, TurnContextRow, TurnRow
from schema.turns import TurnStatus
from services.audit import record
from services.chats import get_chat
from services.database import Connection, Database
from services.database.queries import CompiledQuery, Listing, Order, by_id
from services.erasure import DeletedTurns, ask_for_erasure, request_erasure
from services.message_parts import SHOWN, SHOWN_WITH_SIBLINGS, message_from_row
from services.resources import Unreachable, why_unreachable

_IN_ORDER: Final = (col(MessageRow.turn_id), col(MessageRow.id))
_ORDERS: Final = {
    MessageSort.CREATED: Order("createdAt", _IN_ORDER),
    MessageSort.CREATED_LAST: Order("-createdAt", _IN_ORDER, descending=True),
}


def _tree(start: Any, *, down: bool) -> SelectOfScalar[UUID]:  # noqa: ANN401 -- a value or parameter
    """Return a message with what it follows, or with all that follows it."""
    said: Any = aliased(MessageRow)
    columns = (said.id, said.chat_id, said.parent_id)
    first = select_columns(*columns).where(said.id == start)
    tree: Any = first.cte("below" if down else "branch", recursive=True)
    is_next = said.parent_id == tree.c.id if down else said.id == tree.c.parent_id
    joined = and_(said.chat_id == tree.c.chat_id, is_next)
    tree = tree.union_all(select_columns(*columns).join(tree, joined))
    return select(tree.c.id)


_CHAT_ID: Final = bindparam("chat_id", type_=Uuid)


def _place_of(name: str) -> Any:  # noqa: ANN401 -- a tuple of values
    """Return the place in the order of the chat's message of this name; nulls if it has none."""
    said: Any = aliased(MessageRow)
    message_id = bindparam(name, type_=Uuid)
    turn = select(said.turn_id).where(said.id == message_id, said.chat_id == _CHAT_ID)
    return tuple_(turn.scalar_subquery(), message_id)


_CHAT: Final = by_id(ChatRow)
_KNOWN: Final = "SELECT id FROM messages WHERE chat_id = $1 AND id = ANY($2::uuid[])"
_LEAF: Final[Any] = select(ChatRow.leaf_id).where(col(ChatRow.id) == _CHAT_ID)
_MESSAGE: Final[CompiledQuery[Any]] = CompiledQuery(
    SHOWN_WITH_SIBLINGS.where(col(MessageRow.id) == bindparam("message_id", type_=Uuid))
)
_MESSAGES, _WITH_SIBLINGS = (
    Listing(
        query.where(col(MessageRow.chat_id) == _CHAT_ID),
        {
            "branch": col(MessageRow.id).in_(_tree(bindparam("branch", type_=Uuid), down=False)),
            "is_current": {
                True: col(MessageRow.id).in_(_tree(_LEAF.scalar_subquery(), down=False))
            },
            "before": tuple_(*_IN_ORDER) < _place_of("before"),
            "after": tuple_(*_IN_ORDER) > _place_of("after"),
        },
    )
    for query in (SHOWN, SHOWN_WITH_SIBLINGS)
)


_SUMMARIES: Final = Listing(select(ChatSummaryRow).where(col(ChatSummaryRow.chat_id) == _CHAT_ID))
_NEWEST_SUMMARY: Final = Order("-createdAt", (col(ChatSummaryRow.id),), descending=True)


class BranchRefusal(StrEnum):
    """Why a branch is not chosen, or not deleted."""

    UNKNOWN_MESSAGE = "unknown_message"
    BUSY = "busy"


class ListRefusal(StrEnum):
    """Why messages can't be listed from a message on."""

    UNKNOWN_BEFORE = "unknown_before"
    UNKNOWN_AFTER = "unknown_after"


class MessageService:
    """The messages of users. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_messages(
        self,
        actor: Actor,
        chat_id: ChatId,
        chosen: MessageFilter,
        page: PageRequest,
        *,
        sort: MessageSort = MessageSort.CREATED,
    ) -> Result[Page[Message], ListRefusal | Unreachable]:
        """Return the messages of a branch of a chat, by default the current one, or of all.

        Errors: InvalidCursorError.
        """
        is_named = chosen.branch is not None and chosen.branch != ALL_BRANCHES
        wanted = {
            "chat_id": chat_id,
            "is_current": chosen.branch is None,
            "branch": chosen.branch if is_named else None,
            "before": chosen.before,
            "after": chosen.after,
        }
        listing = _WITH_SIBLINGS if chosen.siblings else _MESSAGES
        rows = await listing.read(self._database.reader(actor), page, _ORDERS[sort], wanted)
        if rows.items:
            return Ok(rows.map(message_from_row))
        async with self._database.statements(actor) as connection:
            if await _CHAT.first(connection, id=chat_id) is not None:
                refusal = await _why_nothing(connection, chat_id, chosen)
                return Ok(Page([], None)) if refusal is None else Err(refusal)
        return Err(await why_unreachable(self._database, ChatRow, chat_id))

    async def list_summaries(
        self, actor: Actor, chat_id: ChatId, page: PageRequest
    ) -> Result[Page[ChatSummary], Unreachable]:
        """Return the summaries of all branches of a chat, newest first.

        Errors: InvalidCursorError.
        """
        async with self._database.statements(actor) as connection:
            if await _CHAT.first(connection, id=chat_id) is not None:
                wanted = {"chat_id": chat_id}
                rows = await _SUMMARIES.read(connection, page, _NEWEST_SUMMARY, wanted)
                return Ok(rows.map(ChatSummary.model_validate))
        return Err(await why_unreachable(self._database, ChatRow, chat_id))

    async def get(self, actor: Actor, message_id: MessageId) -> Result[Message, Unreachable]:
        """Return one message, with its siblings."""
        async with self._database.statements(actor) as connection:
            row = await _MESSAGE.first(connection, message_id=message_id)
        if row is None:
            return Err(await why_unreachable(self._database, MessageRow, message_id))
        return Ok(message_from_row(row))

    async def choose_branch(
        self, actor: Actor, chat_id: ChatId, message_id: MessageId
    ) -> Result[Chat, BranchRefusal | Unreachable]:
        """Make the newest branch through a message the current one."""
        async with self._database.transaction(actor) as session:
            row = await session.get(ChatRow, chat_id, with_for_update=True)
            if row is not None:
                newest = await _newest(session, chat_id, after=message_id)
                if newest is None:
                    return Err(BranchRefusal.UNKNOWN_MESSAGE)
                row.leaf_id = newest
        return await get_chat(self._database, actor, chat_id)

    async def delete(
        self, actor: Actor, message_id: MessageId
    ) -> Result[DeletedTurns, BranchRefusal | Unreachable]:
        """Delete a message with all that follows it; return turns whose streams are to be erased.

        The current branch continues at the newest of its siblings, or ends with its parent.
        """
        async with self._database.transaction(actor) as session:
            message = await session.get(MessageRow, message_id)
            if message is not None:
                chat = await session.get(ChatRow, message.chat_id, with_for_update=True)
                if chat is not None:
                    return await _delete(session, actor, message, chat)
        return Err(await why_unreachable(self._database, MessageRow, message_id))


async def _why_nothing(
    connection: Connection, chat_id: ChatId, chosen: MessageFilter
) -> ListRefusal | None:
    """Return whether nothing is listed since the chat has no message that the filter names."""
    named = [chosen.before, chosen.after]
    known = {row["id"] for row in await connection.fetch(_KNOWN, chat_id, named)}
    if chosen.before is not None and chosen.before not in known:
        return ListRefusal.UNKNOWN_BEFORE
    if chosen.after is not None and chosen.after not in known:
        return ListRefusal.UNKNOWN_AFTER
    return None


async def _delete(
    session: AsyncSession, actor: Actor, message: MessageRow, chat: ChatRow
) -> Result[DeletedTurns, BranchRefusal]:
    """Delete a message and what follows it, under the chat's lock."""
    below = (await session.exec(_tree(message.id, down=True))).all()
    # A turn goes with its last message: the one that asked a question keeps that, and what joined.
    of_turn = select(MessageRow.id).where(col(MessageRow.turn_id) == message.turn_id)
    is_kept = not {*(await session.exec(of_turn)).all()}.issubset(below)
    doomed = [col(TurnRow.user_message_id).in_(below), col(TurnRow.id) == message.turn_id]
    in_chat = col(TurnRow.chat_id) == chat.id
    turns = (await session.exec(select(TurnRow).where(in_chat, or_(*doomed)))).all()
    if not all(TurnStatus(turn.status).is_final for turn in turns):
        return Err(BranchRefusal.BUSY)
    deleted = [turn.id for turn in turns if turn.id != message.turn_id or not is_kept]
    of_deleted = col(TurnRow.id).in_(deleted)
    erased = await ask_for_erasure(session, of_deleted)
    await session.exec(delete(MessageRow).where(col(MessageRow.id).in_(below)))
    await session.exec(delete(TurnRow).where(of_deleted))
    if is_kept:
        erased = replace(erased, all=(*erased.all, await _strip(session, message.turn_id)))
    if chat.leaf_id in below:
        chat.leaf_id = await _newest(session, chat.id, after=message.parent_id)
    record(session, actor, AuditAction.MESSAGE_DELETED, (ResourceType.MESSAGE, message.id))
    return Ok(erased)


async def _strip(session: AsyncSession, turn_id: UUID) -> TurnId:
    """Delete what a turn has said and done; it can be regenerated."""
    for table in (StepRow, TurnContextRow):
        columns: Any = table
        await session.exec(delete(table).where(col(columns.turn_id) == turn_id))
    kept = update(TurnRow).where(col(TurnRow.id) == turn_id)
    await session.exec(kept.values(assistant_message_id=None))
    await request_erasure(session, [TurnId(turn_id)])
    return TurnId(turn_id)


async def _newest(session: AsyncSession, chat_id: UUID, *, after: UUID | None) -> UUID | None:
    """Return the newest message after a message, or this itself; without one, of the chat."""
    newest_first = [column.desc() for column in _IN_ORDER]
    query = select(MessageRow.id).where(col(MessageRow.chat_id) == chat_id)
    if after is not None:
        query = query.where(col(MessageRow.id).in_(_tree(after, down=True)))
    return (await session.exec(query.order_by(*newest_first).limit(1))).first()
