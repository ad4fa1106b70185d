"""Shares: links by which anyone can read a branch, until its owner or time ends them.

A link ends in a token of 256 random bits, of which only the hash is stored. What readers get is
read by a function in the database that gives out no more than what was said.
"""

import secrets
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import ANONYMOUS, Actor
from schema.audit import AuditAction, ResourceType
from schema.ids import ChatId, MessageId, ShareId, new_id
from schema.pages import Page, PageRequest
from schema.result import Err, Ok, Result
from schema.shares import CreatedShare, Share, SharedConversation, SharedMessage, ShareRequest
from schema.tables import ChatRow, MessageRow, ShareRow
from schema.tables.columns import utc_now
from services.audit import record
from services.database import Database
from services.database.queries import Listing, Order, by_id, equals
from services.resources import Conflict, Unreachable, create_once, why_unreachable

MAX_MESSAGES: Final = 2_000
"""How much of a branch readers get: its newest messages."""

_MAX_OF_CHAT: Final = 100
_LONGEST: Final = timedelta(days=3660)

_READ: Final = "SELECT * FROM everturn_read_share($1, $2)"
_SHARES: Final = Listing(select(ShareRow), equals(col(ShareRow.chat_id), col(ShareRow.user_id)))
_NEWEST_FIRST: Final = Order("-createdAt", (col(ShareRow.id),), descending=True)
_CHAT: Final = by_id(ChatRow)


class ShareRefusal(StrEnum):
    """Why a branch is not shared."""

    SWITCHED_OFF = "switched_off"
    INVALID_EXPIRY = "invalid_expiry"
    TOO_MANY = "too_many"
    EMPTY = "empty"
    UNKNOWN_MESSAGE = "unknown_message"


class _Subject(BaseModel):
    """What a key stands for: the same request about another chat is another one."""

    chat_id: UUID
    request: ShareRequest


class ShareService:
    """The shares of users. Errors: DatabaseUnavailableError.

    Links begin with `public_url`. Without `is_on`, branches are no longer shared, and no link
    works.
    """

    def __init__(self, database: Database, *, public_url: str | None, is_on: bool) -> None:
        self._database = database
        self._public_url = public_url or ""
        self._is_on = is_on

    async def create(
        self, actor: Actor, chat_id: ChatId, request: ShareRequest, *, key: str | None
    ) -> Result[CreatedShare, ShareRefusal | Conflict | Unreachable]:
        """Share a branch up to a message; the link's token is returned once and never again.

        Idempotency: retrying with the same key and request returns the share created before,
        without its token.
        """
        if not self._is_on:
            return Err(ShareRefusal.SWITCHED_OFF)
        if request.expires_at and not utc_now() < request.expires_at < utc_now() + _LONGEST:
            return Err(ShareRefusal.INVALID_EXPIRY)
        share_id, token = ShareId(new_id()), secrets.token_urlsafe(32)

        async def create(
            session: AsyncSession,
        ) -> Result[CreatedShare, ShareRefusal | Unreachable]:
            chat = await session.get(ChatRow, chat_id, with_for_update=True)
            if chat is None:
                return Err(Unreachable.MISSING)
            shared = await _message_of(session, chat, request.message_id)
            if isinstance(shared, Err):
                return shared
            row = ShareRow(
                id=share_id,
                chat_id=chat_id,
                message_id=shared.value,
                user_id=actor.user_id,
                title=request.title or chat.title,
                token_hash=_hash(token),
                expires_at=request.expires_at,
            )
            session.add(row)
            record(session, actor, AuditAction.SHARE_CREATED, (ResourceType.SHARE, share_id))
            await session.flush()
            return Ok(self._created(row, token))

        async def find(earlier: str) -> Result[CreatedShare, Unreachable]:
            async with self._database.transaction(actor) as session:
                row = await session.get(ShareRow, UUID(earlier))
            return Err(Unreachable.MISSING) if row is None else Ok(self._created(row, None))

        created = await create_once(
            self._database,
            actor,
            key,
            request=_Subject(chat_id=chat_id, request=request),
            resource_id=share_id,
            create=create,
            find=find,
        )
        if isinstance(created, Err) and created.error is Unreachable.MISSING:
            return Err(await why_unreachable(self._database, ChatRow, chat_id))
        return created

    async def list_shares(
        self, actor: Actor, chat_id: ChatId, page: PageRequest
    ) -> Result[Page[Share], Unreachable]:
        """Return the shares of a chat, newest first. Errors: InvalidCursorError."""
        async with self._database.statements(actor) as connection:
            if await _CHAT.first(connection, id=chat_id) is not None:
                own = {"chat_id": chat_id, "user_id": actor.user_id}
                rows = await _SHARES.read(connection, page, _NEWEST_FIRST, own)
                return Ok(rows.map(lambda row: Share(**_fields(row))))
        return Err(await why_unreachable(self._database, ChatRow, chat_id))

    async def revoke(self, actor: Actor, share_id: ShareId) -> Result[None, Unreachable]:
        """End a share: its link no longer works."""
        async with self._database.transaction(actor) as session:
            row = await session.get(ShareRow, share_id)
            if row is not None:
                await session.delete(row)
                record(session, actor, AuditAction.SHARE_REVOKED, (ResourceType.SHARE, share_id))
                return Ok(None)
        return Err(await why_unreachable(self._database, ShareRow, share_id))

    async def read(self, token: str) -> Result[SharedConversation, Unreachable]:
        """Return what a link shows, to anyone."""
        if not self._is_on:
            return Err(Unreachable.MISSING)
        async with self._database.statements(ANONYMOUS) as connection:
            rows = await connection.fetch(_READ, _hash(token), MAX_MESSAGES + 1)
        if not rows:
            return Err(Unreachable.MISSING)
        return Ok(
            SharedConversation(
                title=rows[0]["title"] or None,
                shared_at=rows[0]["shared_at"],
                expires_at=rows[0]["expires_at"],
                is_whole=len(rows) <= MAX_MESSAGES,
                messages=[
                    SharedMessage(
                        role=row["role"], content=row["content"], created_at=row["said_at"]
                    )
                    for row in rows[-MAX_MESSAGES:]
                    if row["content"]
                ],
            )
        )

    def _created(self, row: ShareRow, token: str | None) -> CreatedShare:
        url = None if token is None else f"{self._public_url}/api/v1/shared/{token}"
        return CreatedShare(**_fields(row), token=token, url=url)


async def _message_of(
    session: AsyncSession, chat: ChatRow, message_id: MessageId | None
) -> Result[UUID, ShareRefusal]:
    """Return the last message to share; the chat's lock keeps it, and the number of shares."""
    shares = select(ShareRow.id).where(col(ShareRow.chat_id) == chat.id).limit(_MAX_OF_CHAT)
    if len((await session.exec(shares)).all()) >= _MAX_OF_CHAT:
        return Err(ShareRefusal.TOO_MANY)
    if message_id is None:
        return Err(ShareRefusal.EMPTY) if chat.leaf_id is None else Ok(chat.leaf_id)
    query = select(MessageRow.id).where(
        col(MessageRow.id) == message_id, col(MessageRow.chat_id) == chat.id
    )
    found = (await session.exec(query)).first()
    return Err(ShareRefusal.UNKNOWN_MESSAGE) if found is None else Ok(found)


def _fields(row: ShareRow) -> dict[str, Any]:
    created_at: datetime = row.created_at
    return {
        "id": row.id,
        "chat_id": row.chat_id,
        "message_id": row.message_id,
        "title": row.title or None,
        "created_at": created_at,
        "expires_at": row.expires_at,
    }


def _hash(token: str) -> bytes:
    return sha256(token.encode()).digest()
