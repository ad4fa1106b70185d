"""Accepts a message: the message and its turn are stored together, or neither is.

The row of the chat is the lock that decides which turn runs now; the workflow is started by the
caller once the transaction is through, or by the sweep.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

import asyncpg

from schema.actors import Actor
from schema.budgets import BudgetExceeded
from schema.chats import SendMessageRequest
from schema.ids import ApiKeyId, ChatId, MessageId, TurnId, new_id
from schema.result import Err, Ok, Result
from schema.tables import ChatRow, TurnRow
from schema.turn_options import TurnOptions
from schema.turns import IfBusy, Turn, TurnReference, TurnStatus
from services.audit import current_origin
from services.auth.accounts import AccountCache
from services.database import Connection, Database
from services.files.attaching import attach_to_message, lock_attachments
from services.prompts.tokens import tokens_of
from services.resources import (
    Conflict,
    Fingerprint,
    InvalidField,
    Unreachable,
    why_unreachable,
)
from services.subscriptions.budget_alerts import BudgetAlerts
from services.subscriptions.budget_use import exceeded_budget, exhausted_budget
from services.subscriptions.plans import choose_model
from services.turns.options import OptionRefusal, OptionRules
from services.turns.rows import reference_from_row, turn_from_row, turn_row
from services.turns.steering import MAY_JOIN

_OF_KEY: Final = "SELECT * FROM turns WHERE user_id = $1 AND idempotency_key = $2"

# After the lock, so that it sees what the lock waited for. It has at least one row, unless the chat
# is gone.
_SITUATION: Final = f"""
SELECT chat.leaf_id, unfinished.id, unfinished.active, budget.*,
       EXISTS (SELECT FROM messages WHERE id = $4 AND chat_id = $1) AS has_parent
FROM (SELECT leaf_id FROM chats WHERE id = $1) AS chat
LEFT JOIN (
    SELECT id, active FROM turns
    WHERE chat_id = $1 AND status IN ('queued', 'running', 'awaiting_approval')
) AS unfinished ON true
LEFT JOIN ({exhausted_budget(user="$2", api_key="$3")}) AS budget ON true
"""  # noqa: S608 -- no value is written into it

_REQUEST_CANCEL: Final = """
UPDATE turns SET cancel_requested_at = now() WHERE id = $1 AND cancel_requested_at IS NULL
"""

_DROP_WAITING: Final = """
UPDATE turns SET status = 'cancelled', finished_at = now()
WHERE chat_id = $1 AND status = 'queued' AND NOT active RETURNING id
"""

# The key may have been used in another chat in the meantime; then nothing is stored. An edit of a
# message that joined a turn belongs to the question that it follows, as that did.
_STORE: Final = """
WITH turn AS (
    INSERT INTO turns (id, chat_id, user_id, user_message_id, active, model, idempotency_key,
                       request_hash, api_key_id, request_id, options, steers)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $11, $12, $14, $16)
    ON CONFLICT (user_id, idempotency_key) DO NOTHING
    RETURNING *
), message AS (
    INSERT INTO messages (id, chat_id, user_id, turn_id, role, content, tokens, parent_id,
                          client_metadata, joined_step)
    SELECT user_message_id, chat_id, user_id, id, 'user', $9, $10, $13, $15::jsonb,
           CASE WHEN $17 AND EXISTS (
               SELECT FROM messages AS other WHERE other.chat_id = turn.chat_id
               AND other.parent_id = $13 AND other.joined_step IS NOT NULL) THEN 0 END
    FROM turn
), leaf AS (
    UPDATE chats SET leaf_id = user_message_id, updated_at = now() FROM turn
    WHERE chats.id = turn.chat_id
)
SELECT * FROM turn
"""


class AcceptanceRefusal(StrEnum):
    """Why a message was not accepted, except that its chat was not found."""

    BLANK = "blank"
    UNKNOWN_PARENT = "unknown_parent"
    UNKNOWN_MODEL = "unknown_model"
    MODEL_NOT_ALLOWED = "model_not_allowed"
    BUSY = "busy"
    QUEUE_FULL = "queue_full"


Refusal: TypeAlias = AcceptanceRefusal | BudgetExceeded | InvalidField


@dataclass(frozen=True, slots=True)
class TooLong:
    """The message is longer than allowed."""

    length: int
    limit: int


@dataclass(frozen=True, slots=True)
class AcceptanceLimits:
    """The limits of messages."""

    max_content_chars: int
    max_queued_turns: int
    models: tuple[str, ...]
    default_model: str
    text_only_models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Accepted:
    """A stored turn, and the workflows to start or cancel because of it."""

    turn: Turn
    reference: TurnReference
    replayed: bool
    starts_now: bool
    interrupts: TurnId | None = None
    dropped: tuple[TurnId, ...] = ()


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What the turn is to run with."""

    model: str
    options: TurnOptions


@dataclass(frozen=True, slots=True)
class _Queue:
    """The state of a chat when a message arrives."""

    active: TurnId | None
    waiting: int
    dropped: tuple[TurnId, ...] = ()


class TurnAcceptance:
    """Accepts messages, unless a budget has nothing left. Errors: DatabaseUnavailableError."""

    def __init__(
        self,
        database: Database,
        limits: AcceptanceLimits,
        accounts: AccountCache,
        budgets: BudgetAlerts,
        *,
        options: OptionRules,
    ) -> None:
        self._database = database
        self._limits = limits
        self._accounts = accounts
        self._budgets = budgets
        self._options = options

    async def accept(
        self,
        actor: Actor,
        chat_id: ChatId,
        request: SendMessageRequest,
        *,
        key: str | None,
        api_key_id: ApiKeyId | None = None,
    ) -> Result[Accepted, Refusal | TooLong | OptionRefusal | Conflict | Unreachable]:
        """Store the message and its turn, which counts towards the budget of `api_key_id`, too.

        Idempotency: retrying with the same key and request returns the original turn, whatever
        is left of the budget by then.
        """
        refusal = self._refusal(request)
        if refusal is not None:
            return Err(refusal)
        chosen, admitted = await self._choose(actor, request), None
        async with self._database.statements(actor, locking=chat_id) as connection:
            rows = await connection.fetch(
                _SITUATION, chat_id, actor.user_id, api_key_id, request.parent_id
            )
            if rows:
                admitted = await self._admit(
                    connection,
                    rows,
                    actor=actor,
                    chat_id=chat_id,
                    request=request,
                    chosen=chosen,
                    key=key,
                    api_key_id=api_key_id,
                )
        if admitted is None:
            return Err(await why_unreachable(self._database, ChatRow, chat_id))
        await self._budgets.notice_refusal(actor.user_id, admitted, api_key_id=api_key_id)
        return admitted

    async def _admit(  # noqa: PLR0911 -- one for each refusal
        self,
        connection: Connection,
        rows: Sequence[asyncpg.Record],
        *,
        actor: Actor,
        chat_id: ChatId,
        request: SendMessageRequest,
        chosen: Result[_Chosen, AcceptanceRefusal | OptionRefusal],
        key: str | None,
        api_key_id: ApiKeyId | None,
    ) -> Result[Accepted, Refusal | TooLong | OptionRefusal | Conflict | Unreachable]:
        """Decide under the chat's lock, by its situation, and store what is accepted."""
        # Without `stream`: a client may retry with another way of delivery.
        fingerprint = Fingerprint(_subject(chat_id, request), request, without="stream")
        earlier = await replayed_turn(connection, actor, key, fingerprint)
        if earlier is not None:
            return earlier
        if isinstance(chosen, Err):
            return chosen
        attached = await self._lock_attachments(connection, request, chosen.value.model)
        unacceptable: Refusal | None = exceeded_budget(rows[0])
        if request.parent_id is not None and not rows[0]["has_parent"]:
            unacceptable = AcceptanceRefusal.UNKNOWN_PARENT
        if unacceptable is not None:
            return Err(unacceptable)
        if isinstance(attached, Err):
            return Err(attached.error)
        unfinished = [row for row in rows if row["id"] is not None]
        queue = await _make_room(connection, chat_id, unfinished, request.if_busy)
        refusal = self._refusal_of(queue, request.if_busy)
        if refusal is not None:
            return Err(refusal)
        parent_id = request.parent_id if request.names_parent else rows[0]["leaf_id"]
        steers = None
        if request.if_busy is IfBusy.STEER and queue.active is not None:
            options = chosen.value.options.stored() if request.stored() else None
            # Another model may not take files.
            model = chosen.value.model if request.attachments else request.model
            asks = (queue.active, parent_id, model, api_key_id, options)
            steers = queue.active if await connection.fetchval(MAY_JOIN, *asks) else None
        message_id = new_id()
        # Created under the chat's lock: turns are in the order of their ids.
        stored = await connection.fetchrow(
            _STORE,
            new_id(),
            chat_id,
            actor.user_id,
            message_id,
            queue.active is None,
            chosen.value.model,
            key,
            fingerprint.hash,
            request.content,
            tokens_of(request.content) + attached.value,
            api_key_id,
            current_origin().request_id,
            parent_id,
            chosen.value.options.stored(),
            request.metadata,
            steers,
            request.names_parent,
        )
        if stored is None:
            return Err(Conflict.KEY_REUSED)
        if request.attachments:
            await attach_to_message(connection, request.attachments, MessageId(message_id))
        interrupts = queue.active if request.if_busy is IfBusy.INTERRUPT else None
        return Ok(
            accepted_turn(
                turn_row(stored), replayed=False, interrupts=interrupts, dropped=queue.dropped
            )
        )

    async def _lock_attachments(
        self, connection: Connection, request: SendMessageRequest, model: str
    ) -> Result[int, InvalidField]:
        """Lock the files that the message names; return their tokens."""
        if not request.attachments:
            return Ok(0)
        takes_files = model not in self._limits.text_only_models
        return await lock_attachments(connection, request.attachments, takes_files=takes_files)

    async def _choose(
        self, actor: Actor, request: SendMessageRequest
    ) -> Result[_Chosen, AcceptanceRefusal | OptionRefusal]:
        """Return the model and the options, as the actor's plan allows them."""
        account = await self._accounts.get(actor.user_id)
        model = None
        if account is not None:
            model = choose_model(
                account.entitlements,
                request.model,
                models=self._limits.models,
                preferred=(account.preferred_model, self._limits.default_model),
            )
        if account is None or model is None:
            return Err(AcceptanceRefusal.MODEL_NOT_ALLOWED)
        options = await self._options.permit(request, model, account)
        return options if isinstance(options, Err) else Ok(_Chosen(model, options.value))

    def _refusal_of(self, queue: _Queue, if_busy: IfBusy) -> AcceptanceRefusal | None:
        if queue.active is not None and if_busy is IfBusy.REJECT:
            return AcceptanceRefusal.BUSY
        if queue.waiting >= self._limits.max_queued_turns:
            return AcceptanceRefusal.QUEUE_FULL
        return None

    def _refusal(self, request: SendMessageRequest) -> AcceptanceRefusal | TooLong | None:
        if not request.content.strip() and not request.attachments:
            return AcceptanceRefusal.BLANK
        if len(request.content) > self._limits.max_content_chars:
            return TooLong(len(request.content), self._limits.max_content_chars)
        if request.model is not None and request.model not in self._limits.models:
            return AcceptanceRefusal.UNKNOWN_MODEL
        return None


def _subject(chat_id: ChatId, request: SendMessageRequest) -> str:
    """Return what a request concerns: a parent that is null is not one that is left out."""
    begins = request.names_parent and request.parent_id is None
    return f"{chat_id} from its beginning" if begins else str(chat_id)


async def _make_room(
    connection: Connection, chat_id: ChatId, unfinished: Sequence[asyncpg.Record], if_busy: IfBusy
) -> _Queue:
    """Return what runs and waits in the chat; an interruption cancels all of it."""
    active = next((TurnId(row["id"]) for row in unfinished if row["active"]), None)
    waiting = sum(not row["active"] for row in unfinished)
    if active is None or if_busy is not IfBusy.INTERRUPT:
        return _Queue(active, waiting)
    await connection.execute(_REQUEST_CANCEL, active)
    dropped = await connection.fetch(_DROP_WAITING, chat_id)
    return _Queue(active, 0, tuple(TurnId(row["id"]) for row in dropped))


async def replayed_turn(
    connection: Connection, actor: Actor, key: str | None, fingerprint: Fingerprint
) -> Result[Accepted, Conflict] | None:
    """Return the turn that was created with the key, or None.

    Errors: `Conflict.KEY_REUSED` if the key was used for another request.
    """
    found = None if key is None else await connection.fetchrow(_OF_KEY, actor.user_id, key)
    if found is None:
        return None
    earlier = turn_row(found)
    if earlier.request_hash is None or not fingerprint.matches(earlier.request_hash):
        return Err(Conflict.KEY_REUSED)
    return Ok(accepted_turn(earlier, replayed=True))


def accepted_turn(
    turn: TurnRow,
    *,
    replayed: bool,
    interrupts: TurnId | None = None,
    dropped: tuple[TurnId, ...] = (),
) -> Accepted:
    """Return the stored turn with what the caller needs."""
    return Accepted(
        turn=turn_from_row(turn),
        reference=reference_from_row(turn),
        replayed=replayed,
        starts_now=turn.active and turn.status == TurnStatus.QUEUED,
        interrupts=interrupts,
        dropped=dropped,
    )
