"""Chats as their owners use them: created, listed, searched, renamed, archived, deleted."""

from functools import cache
from types import SimpleNamespace
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ARRAY, Boolean, Text, Uuid, bindparam, delete, literal_column
from sqlalchemy import select as select_columns
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.audit import AuditAction, ResourceType
from schema.chats import (
    ActiveTurn,
    ArchivedFilter,
    ChangeChatRequest,
    Chat,
    ChatFilter,
    ChatSort,
    CreateChatRequest,
    LastMessage,
)
from schema.ids import ChatId, MessageId, new_id
from schema.pages import Page, PageRequest
from schema.result import Err, Ok, Result
from schema.tables import ChatRow, TurnRow
from schema.tables.columns import utc_now
from services.audit import record
from services.chat_search import (
    NO_WORDS,
    SearchedWords,
    SearchForm,
    hits_of_words,
    holds_words,
    words_of,
)
from services.database import Database
from services.database.queries import CompiledQuery, Filter, Listing, Order
from services.erasure import DeletedTurns, ask_for_erasure
from services.resources import (
    Conflict,
    Unreachable,
    Versions,
    create_once,
    version_matches,
    why_unreachable,
)

_EXCERPT_CHARS: Final = 200
"""How much of a chat's last message a list shows."""

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
_LAST_MESSAGE: Final = f"""
(SELECT jsonb_build_object('id', id, 'role', role, 'text', left(content, {_EXCERPT_CHARS}),
                           'created_at', created_at)
 FROM messages WHERE messages.id = chats.leaf_id)
"""  # noqa: S608 -- a number
_ACTIVE_TURN: Final = """
(SELECT jsonb_build_object('id', id, 'status', status)
 FROM turns WHERE turns.chat_id = chats.id AND turns.active)
"""
_SHOWN: Final[Any] = select_columns(
    ChatRow,
    literal_column(_LAST_MESSAGE).label("last_message"),
    literal_column(_ACTIVE_TURN).label("active_turn"),
)
_IS_ARCHIVED: Final = col(ChatRow.archived_at).is_not(None)
_IS_PINNED: Final = col(ChatRow.pinned_at).is_not(None)
_FILTERS: Final[dict[str, Filter]] = {
    "archived": {ArchivedFilter.TRUE: _IS_ARCHIVED, ArchivedFilter.FALSE: ~_IS_ARCHIVED},
    "pinned": {True: _IS_PINNED, False: ~_IS_PINNED},
    "tag": col(ChatRow.tags).op("@>", return_type=Boolean())(bindparam("tag", type_=ARRAY(Text))),
}
_CHAT: Final[CompiledQuery[Any]] = CompiledQuery(
    _SHOWN.where(col(ChatRow.id) == bindparam("id", type_=Uuid))
)


@cache
def _listing(form: SearchForm | None) -> Listing[Any]:
    """Return the listing of the actor's chats; those that hold a search's words say where."""
    owned = _SHOWN.where(col(ChatRow.user_id) == bindparam("owner_id", type_=Uuid))
    if form is None:
        return Listing(owned, _FILTERS)
    return Listing(owned.where(holds_words(form)).add_columns(hits_of_words(form)), _FILTERS)


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
            return Ok(_empty_chat(row))

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
        searched = words_of(chosen.q or chosen.search or "")
        wanted = {
            "archived": chosen.archived,
            "pinned": chosen.pinned,
            "tag": chosen.tag or None,
            "owner_id": actor.user_id,
            **searched.parameters,
        }
        listing = _listing(searched.form)
        async with self._database.statements(actor) as connection:
            rows = await listing.read(connection, page, _ORDERS[sort], wanted)
        return rows.map(lambda row: _chat_from_row(row, searched))

    async def get(self, actor: Actor, chat_id: ChatId) -> Result[Chat, Unreachable]:
        """Return one chat."""
        return await get_chat(self._database, actor, chat_id)

    async def change(
        self, actor: Actor, chat_id: ChatId, request: ChangeChatRequest, *, versions: Versions
    ) -> Result[Chat, Conflict | Unreachable]:
        """Rename, archive, pin or tag a chat, if its version is one of `versions`."""
        async with self._database.transaction(actor) as session:
            row = await session.get(ChatRow, chat_id, with_for_update=True)
            if row is not None:
                if not version_matches(row.version, versions):
                    return Err(Conflict.VERSION_CHANGED)
                _apply(row, request.changes())
        return await self.get(actor, chat_id)

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


async def get_chat(database: Database, actor: Actor, chat_id: ChatId) -> Result[Chat, Unreachable]:
    """Return one chat."""
    async with database.statements(actor) as connection:
        row = await _CHAT.first(connection, id=chat_id)
    if row is None:
        return Err(await why_unreachable(database, ChatRow, chat_id))
    return Ok(_chat_from_row(row))


def _chat_from_row(row: Any, searched: SearchedWords = NO_WORDS) -> Chat:  # noqa: ANN401 -- a row of _SHOWN
    """Return the chat that the row holds."""
    last, active = row.last_message, row.active_turn
    return Chat(
        id=ChatId(row.id),
        title=row.title or None,
        archived=row.archived_at is not None,
        pinned=row.pinned_at is not None,
        tags=row.tags,
        leaf_id=None if row.leaf_id is None else MessageId(row.leaf_id),
        last_message=None
        if last is None
        else LastMessage(**{**last, "text": _begin(last["text"])}),
        active_turn=None if active is None else ActiveTurn(**active),
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
        hits=None if searched.form is None else searched.hits(row.title, row.hits),
    )


def _empty_chat(row: ChatRow) -> Chat:
    return _chat_from_row(SimpleNamespace(**row.model_dump(), last_message=None, active_turn=None))


def _begin(text: str) -> str:
    """Return how a message begins, in one line."""
    return " ".join(text.split())


def _apply(row: ChatRow, changes: dict[str, Any]) -> None:
    """Change what is shown of a chat; this is not when it was last used."""
    if "title" in changes:
        row.title = changes["title"]
    if "tags" in changes:
        row.tags = list(changes["tags"])
    if "archived" in changes:
        row.archived_at = (row.archived_at or utc_now()) if changes["archived"] else None
    if "pinned" in changes:
        row.pinned_at = (row.pinned_at or utc_now()) if changes["pinned"] else None
    row.version += 1
