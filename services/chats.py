"""Chats as their owners use them: created, listed, searched, renamed, archived, deleted."""

from typing import Any, Final
from uuid import UUID

from sqlalchemy import Uuid, bindparam, delete, exists, or_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.audit import AuditAction, ResourceType
from schema.chats import (
    ArchivedFilter,
    ChangeChatRequest,
    Chat,
    ChatFilter,
    ChatSort,
    CreateChatRequest,
)
from schema.ids import ChatId, MessageId, new_id
from schema.pages import Page, PageRequest
from schema.result import Err, Ok, Result
from schema.tables import ChatRow, MessageRow, TurnRow
from schema.tables.columns import utc_now
from services.audit import record
from services.database import Database
from services.database.queries import Listing, Order, by_id, contains_searched
from services.erasure import DeletedTurns, ask_for_erasure
from services.resources import (
    Conflict,
    Unreachable,
    Versions,
    create_once,
    touch,
    version_matches,
    why_unreachable,
)

_ORDERS: Final = {
    ChatSort.CREATED: Order("createdAt", (col(ChatRow.id),)),
    ChatSort.CREATED_LAST: Order("-createdAt", (col(ChatRow.id),), descending=True),
    ChatSort.UPDATED: Order("updatedAt", (col(ChatRow.updated_at), col(ChatRow.id))),
    ChatSort.UPDATED_LAST: Order(
        "-updatedAt", (col(ChatRow.updated_at), col(ChatRow.id)), descending=True
    ),
    ChatSort.TITLE: Order("title", (col(ChatRow.title), col(ChatRow.id))),
    ChatSort.TITLE_LAST: Order("-title", (col(ChatRow.title), col(ChatRow.id)), descending=True),
}
_IS_ARCHIVED: Final = col(ChatRow.archived_at).is_not(None)
_IN_MESSAGES: Final = exists().where(
    col(MessageRow.chat_id) == col(ChatRow.id),
    contains_searched(MessageRow.content),
)
_CHATS: Final = Listing(
    select(ChatRow).where(col(ChatRow.user_id) == bindparam("owner_id", type_=Uuid)),
    {
        "archived": {ArchivedFilter.TRUE: _IS_ARCHIVED, ArchivedFilter.FALSE: ~_IS_ARCHIVED},
        "search": or_(contains_searched(ChatRow.title), _IN_MESSAGES),
    },
)
_CHAT: Final = by_id(ChatRow)


class ChatService:
    """The chats of users. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, actor: Actor, request: CreateChatRequest, *, key: str | None
    ) -> Result[Chat, Conflict]:
        """Create a chat.

        Idempotency: retrying with the same key and request returns the chat created before.
        """
        row = ChatRow(id=new_id(), user_id=actor.user_id, title=request.title or "")

        async def create(session: AsyncSession) -> Result[Chat, Conflict]:
            session.add(row)
            await session.flush()
            return Ok(chat_from_row(row))

        return await create_once(
            self._database,
            actor,
            key,
            request=request,
            resource_id=row.id,
            create=create,
            find=lambda earlier: self.get(actor, ChatId(UUID(earlier))),
        )

    async def list_chats(
        self, actor: Actor, chosen: ChatFilter, page: PageRequest, *, sort: ChatSort
    ) -> Page[Chat]:
        """Return the actor's chats that match the filter, in the given order.

        Errors: InvalidCursorError.
        """
        wanted = {**vars(chosen), "owner_id": actor.user_id}
        async with self._database.statements(actor) as connection:
            rows = await _CHATS.read(connection, page, _ORDERS[sort], wanted)
        return rows.map(chat_from_row)

    async def get(self, actor: Actor, chat_id: ChatId) -> Result[Chat, Unreachable]:
        """Return one chat."""
        async with self._database.statements(actor) as connection:
            row = await _CHAT.first(connection, id=chat_id)
        if row is None:
            return Err(await why_unreachable(self._database, ChatRow, chat_id))
        return Ok(chat_from_row(row))

    async def change(
        self, actor: Actor, chat_id: ChatId, request: ChangeChatRequest, *, versions: Versions
    ) -> Result[Chat, Conflict | Unreachable]:
        """Rename, archive or unarchive a chat, if its version is one of `versions`."""
        async with self._database.transaction(actor) as session:
            row = await session.get(ChatRow, chat_id, with_for_update=True)
            if row is not None:
                if not version_matches(row.version, versions):
                    return Err(Conflict.VERSION_CHANGED)
                _apply(row, request.changes())
                await session.flush()
                return Ok(chat_from_row(row))
        return Err(await why_unreachable(self._database, ChatRow, chat_id))

    async def delete(self, actor: Actor, chat_id: ChatId) -> Result[DeletedTurns, Unreachable]:
        """Delete a chat and its messages; return its turns, whose streams are yet to be erased."""
        async with self._database.transaction(actor) as session:
            row = await session.get(ChatRow, chat_id, with_for_update=True)
            if row is not None:
                turns = await ask_for_erasure(session, col(TurnRow.chat_id) == chat_id)
                await session.exec(delete(ChatRow).where(col(ChatRow.id) == chat_id))
                record(session, actor, AuditAction.CHAT_DELETED, (ResourceType.CHAT, chat_id))
                return Ok(turns)
        return Err(await why_unreachable(self._database, ChatRow, chat_id))


def chat_from_row(row: ChatRow) -> Chat:
    """Return the chat that the row holds."""
    return Chat(
        id=ChatId(row.id),
        title=row.title or None,
        archived=row.archived_at is not None,
        leaf_id=None if row.leaf_id is None else MessageId(row.leaf_id),
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _apply(row: ChatRow, changes: dict[str, Any]) -> None:
    if "title" in changes:
        row.title = changes["title"]
    if "archived" in changes:
        row.archived_at = (row.archived_at or utc_now()) if changes["archived"] else None
    touch(row)
