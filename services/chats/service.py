"""Owns chats as their owner uses them: creating, listing, reading."""

from sqlalchemy import tuple_
from sqlmodel import col, select

from schema.actors import Actor
from schema.chats import Chat, CreateChatRequest, Message
from schema.ids import ChatId, TurnId, new_id
from schema.pages import Page, PageRequest
from schema.result import Err, Ok, Result
from schema.tables import ChatRow, MessageRow, TurnRow
from schema.turns import Turn
from services.chats.access import Unreachable, why_unreachable
from services.chats.rows import chat_from_row, message_from_row
from services.database import Database
from services.turns.rows import turn_from_row


class ChatService:
    """Keeps the chats of users. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, actor: Actor, request: CreateChatRequest) -> Chat:
        """Make a chat."""
        row = ChatRow(id=new_id(), user_id=actor.user_id, title=request.title)
        async with self._database.transaction(actor) as session:
            session.add(row)
            await session.flush()
        return chat_from_row(row)

    async def list_chats(self, actor: Actor, page: PageRequest) -> Page[Chat]:
        """Return the actor's chats, newest first."""
        query = select(ChatRow).where(col(ChatRow.user_id) == actor.user_id)
        if page.after is not None:
            query = query.where(col(ChatRow.id) < page.after[0])
        query = query.order_by(col(ChatRow.id).desc()).limit(page.limit + 1)
        async with self._database.transaction(actor) as session:
            rows = (await session.exec(query)).all()
        return Page.of([chat_from_row(row) for row in rows], page, key=lambda chat: (chat.id,))

    async def get(self, actor: Actor, chat_id: ChatId) -> Result[Chat, Unreachable]:
        """Return one chat."""
        async with self._database.transaction(actor) as session:
            row = await session.get(ChatRow, chat_id)
        if row is None:
            return Err(await why_unreachable(self._database, ChatRow, chat_id))
        return Ok(chat_from_row(row))

    async def list_messages(
        self, actor: Actor, chat_id: ChatId, page: PageRequest
    ) -> Result[Page[Message], Unreachable]:
        """Return the messages of a chat in the order of the conversation."""
        place = tuple_(col(MessageRow.turn_id), col(MessageRow.id))
        query = select(MessageRow).where(col(MessageRow.chat_id) == chat_id)
        if page.after is not None:
            query = query.where(place > tuple_(*page.after))
        query = query.order_by(col(MessageRow.turn_id), col(MessageRow.id)).limit(page.limit + 1)
        async with self._database.transaction(actor) as session:
            chat = await session.get(ChatRow, chat_id)
            rows = (await session.exec(query)).all() if chat is not None else ()
        if chat is None:
            return Err(await why_unreachable(self._database, ChatRow, chat_id))
        messages = [message_from_row(row) for row in rows]
        return Ok(Page.of(messages, page, key=lambda message: (message.turn_id, message.id)))

    async def turn(self, actor: Actor, turn_id: TurnId) -> Result[Turn, Unreachable]:
        """Return one turn."""
        async with self._database.transaction(actor) as session:
            row = await session.get(TurnRow, turn_id)
        if row is None:
            return Err(await why_unreachable(self._database, TurnRow, turn_id))
        return Ok(turn_from_row(row))

    async def turn_messages(self, actor: Actor, turn_id: TurnId) -> list[Message]:
        """Return the messages of a turn: the question, and the answer once there is one."""
        query = select(MessageRow).where(col(MessageRow.turn_id) == turn_id)
        async with self._database.transaction(actor) as session:
            rows = (await session.exec(query.order_by(col(MessageRow.id)))).all()
        return [message_from_row(row) for row in rows]
