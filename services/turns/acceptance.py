"""Owns accepting a message: it and its turn are stored together, or neither is.

The row of the chat is the lock that decides which turn runs now; the workflow is started by the
caller once the transaction is through, or by the sweep.
"""

import hashlib
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import func, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.chats import MessageRole, SendMessageRequest
from schema.ids import ChatId, TurnId, UserId, new_id
from schema.result import Err, Ok, Result
from schema.tables import ChatRow, MessageRow, TurnRow
from schema.tables.columns import utc_now
from schema.turns import IfBusy, Turn, TurnReference, TurnStatus
from services.chats.access import Unreachable, why_unreachable
from services.database import Database
from services.turns.rows import reference_from_row, turn_from_row


class Refusal(StrEnum):
    """Why a message was not accepted, apart from a chat that is not there."""

    BLANK = "blank"
    TOO_LONG = "too_long"
    UNKNOWN_MODEL = "unknown_model"
    BUSY = "busy"
    QUEUE_FULL = "queue_full"
    KEY_REUSED = "key_reused"


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a message."""

    max_content_chars: int
    max_queued_turns: int
    models: tuple[str, ...]
    default_model: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """A turn that is stored, and what has to happen to workflows because of it."""

    turn: Turn
    reference: TurnReference
    replayed: bool
    starts_now: bool
    interrupts: TurnId | None = None
    dropped: tuple[TurnId, ...] = ()


class TurnAcceptance:
    """Takes messages in."""

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database = database
        self._limits = limits

    async def accept(
        self,
        actor: Actor,
        chat_id: ChatId,
        request: SendMessageRequest,
        *,
        idempotency_key: str | None,
    ) -> Result[Accepted, Refusal | Unreachable]:
        """Store the message and its turn.

        Idempotency: the same key with the same request gives the turn that it gave before.
        """
        refusal = self._refusal(request)
        if refusal is not None:
            return Err(refusal)
        request_hash = _hash_of(chat_id, request)
        async with self._database.transaction(actor) as session:
            if not await _lock_chat(session, chat_id):
                return Err(await why_unreachable(self._database, ChatRow, chat_id))
            if idempotency_key is not None:
                earlier = await _turn_of_key(session, actor.user_id, idempotency_key)
                if earlier is not None:
                    return _replayed(earlier, request_hash)
            active = await _active_turn(session, chat_id)
            if active is not None and request.if_busy is IfBusy.REJECT:
                return Err(Refusal.BUSY)
            dropped: tuple[TurnId, ...] = ()
            if active is not None and request.if_busy is IfBusy.INTERRUPT:
                dropped = await _drop_queued(session, chat_id)
                await _request_cancel(session, active)
            elif active is not None and await self._queue_is_full(session, chat_id):
                return Err(Refusal.QUEUE_FULL)
            turn = TurnRow(
                id=new_id(),
                chat_id=chat_id,
                user_id=actor.user_id,
                user_message_id=new_id(),
                active=active is None,
                model=request.model or self._limits.default_model,
                idempotency_key=idempotency_key,
                request_hash=request_hash,
            )
            await _store(session, turn, request.content)
        interrupts = active if request.if_busy is IfBusy.INTERRUPT else None
        return Ok(_accepted(turn, replayed=False, interrupts=interrupts, dropped=dropped))

    def _refusal(self, request: SendMessageRequest) -> Refusal | None:
        if not request.content.strip():
            return Refusal.BLANK
        if len(request.content) > self._limits.max_content_chars:
            return Refusal.TOO_LONG
        if request.model is not None and request.model not in self._limits.models:
            return Refusal.UNKNOWN_MODEL
        return None

    async def _queue_is_full(self, session: AsyncSession, chat_id: ChatId) -> bool:
        query = select(func.count()).where(
            col(TurnRow.chat_id) == chat_id, col(TurnRow.status) == TurnStatus.QUEUED
        )
        return (await session.exec(query)).one() >= self._limits.max_queued_turns


def _hash_of(chat_id: ChatId, request: SendMessageRequest) -> bytes:
    """Return what tells one request from another under the same key.

    How the answer is delivered is no part of it: a client may ask again without the stream.
    """
    identity = request.model_dump_json(exclude={"stream"})
    return hashlib.sha256(f"{chat_id}\n{identity}".encode()).digest()


async def _lock_chat(session: AsyncSession, chat_id: ChatId) -> bool:
    query = select(ChatRow.id).where(col(ChatRow.id) == chat_id).with_for_update()
    return (await session.exec(query)).first() is not None


async def _turn_of_key(session: AsyncSession, user_id: UserId, key: str) -> TurnRow | None:
    query = select(TurnRow).where(
        col(TurnRow.user_id) == user_id, col(TurnRow.idempotency_key) == key
    )
    return (await session.exec(query)).first()


async def _active_turn(session: AsyncSession, chat_id: ChatId) -> TurnId | None:
    query = select(TurnRow.id).where(col(TurnRow.chat_id) == chat_id, col(TurnRow.active))
    found = (await session.exec(query)).first()
    return None if found is None else TurnId(found)


async def _drop_queued(session: AsyncSession, chat_id: ChatId) -> tuple[TurnId, ...]:
    """Cancel the turns that wait in the chat: a message that interrupts takes their place."""
    waiting = (
        update(TurnRow)
        .where(
            col(TurnRow.chat_id) == chat_id,
            col(TurnRow.status) == TurnStatus.QUEUED,
            ~col(TurnRow.active),
        )
        .values(status=TurnStatus.CANCELLED, finished_at=utc_now())
        .returning(col(TurnRow.id))
    )
    return tuple(TurnId(row[0]) for row in await session.exec(waiting))


async def _request_cancel(session: AsyncSession, turn_id: TurnId) -> None:
    wanted = update(TurnRow).where(
        col(TurnRow.id) == turn_id, col(TurnRow.cancel_requested_at).is_(None)
    )
    await session.exec(wanted.values(cancel_requested_at=utc_now()))


async def _store(session: AsyncSession, turn: TurnRow, content: str) -> None:
    session.add(turn)
    await session.flush()
    session.add(
        MessageRow(
            id=turn.user_message_id,
            chat_id=turn.chat_id,
            user_id=turn.user_id,
            turn_id=turn.id,
            role=MessageRole.USER,
            content=content,
        )
    )
    await session.flush()


def _replayed(earlier: TurnRow, request_hash: bytes) -> Result[Accepted, Refusal | Unreachable]:
    if earlier.request_hash != request_hash:
        return Err(Refusal.KEY_REUSED)
    return Ok(_accepted(earlier, replayed=True))


def _accepted(
    turn: TurnRow,
    *,
    replayed: bool,
    interrupts: TurnId | None = None,
    dropped: tuple[TurnId, ...] = (),
) -> Accepted:
    return Accepted(
        turn=turn_from_row(turn),
        reference=reference_from_row(turn),
        replayed=replayed,
        starts_now=turn.active and turn.status == TurnStatus.QUEUED,
        interrupts=interrupts,
        dropped=dropped,
    )
