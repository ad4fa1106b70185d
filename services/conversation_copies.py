"""Conversations that are stored without being asked: copies of a branch, and imported ones.

Their turns have an origin of their own and no cost: they count neither in usage and budgets nor in
lists of turns. Everything else of a copy is the same, its tool calls included, so that the
conversation continues as it would in its own chat.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.chats import Chat, CreateChatRequest, ForkChatRequest, ImportedMessage, MessageRole
from schema.ids import ChatId, new_id
from schema.result import Err, Ok, Result
from schema.tables import ChatRow
from schema.tables.columns import utc_now
from services.chats import get_chat
from services.database import Database
from services.messages import BranchRefusal
from services.prompts.tokens import tokens_of
from services.resources import Conflict, Unreachable, create_once, why_unreachable

E = TypeVar("E")

# Nothing of the branch is deleted, and no answer is added to it, until it has been copied.
_LOCK: Final = "SELECT title, leaf_id FROM chats WHERE id = $1 FOR SHARE"

_BRANCH: Final = """
WITH RECURSIVE branch AS (
    SELECT id, parent_id, turn_id FROM messages WHERE id = $2 AND chat_id = $1
    UNION ALL
    SELECT said.id, said.parent_id, said.turn_id
    FROM branch JOIN messages AS said ON said.id = branch.parent_id
)
SELECT id, turn_id, true AS is_message FROM branch
UNION ALL
SELECT id, id, false FROM turns
WHERE chat_id = $1 AND joined_step IS NOT NULL
  AND user_message_id IN (SELECT id FROM branch)
"""

# In the statements below $1 is the new chat, $2 and $3 are the turns and their copies, $4 and $5
# the messages and theirs. A row is copied with all its columns but those that are named.
_TURNS: Final = """
INSERT INTO turns SELECT copy.*
FROM unnest($2::uuid[], $3::uuid[]) AS turn (old, new)
JOIN turns ON turns.id = turn.old
LEFT JOIN unnest($4::uuid[], $5::uuid[]) AS question (old, new) ON question.old = user_message_id
LEFT JOIN unnest($4::uuid[], $5::uuid[]) AS answer (old, new) ON answer.old = assistant_message_id
LEFT JOIN unnest($2::uuid[], $3::uuid[]) AS other (old, new) ON other.old = regenerates
LEFT JOIN unnest($2::uuid[], $3::uuid[]) AS steered (old, new) ON steered.old = steers
CROSS JOIN LATERAL jsonb_populate_record(turns, jsonb_build_object(
    'id', turn.new, 'chat_id', $1::uuid, 'origin', 'copied', 'active', false,
    'user_message_id', coalesce(question.new, user_message_id),
    'assistant_message_id', answer.new, 'regenerates', other.new, 'steers', steered.new,
    'status', CASE WHEN answer.new IS NULL AND joined_step IS NULL AND status <> 'failed'
                   THEN 'cancelled' ELSE status END,
    'prompt', NULL, 'idempotency_key', NULL, 'request_hash', NULL, 'api_key_id', NULL,
    'request_id', NULL, 'input_tokens', 0, 'output_tokens', 0, 'cache_read_tokens', 0,
    'cache_write_tokens', 0, 'cost_usd', 0, 'finished_at', coalesce(finished_at, now())
)) AS copy
"""
_MESSAGES: Final = """
INSERT INTO messages SELECT copy.*
FROM unnest($4::uuid[], $5::uuid[]) AS message (old, new)
JOIN messages ON messages.id = message.old
JOIN unnest($2::uuid[], $3::uuid[]) AS turn (old, new) ON turn.old = turn_id
LEFT JOIN unnest($4::uuid[], $5::uuid[]) AS parent (old, new) ON parent.old = parent_id
CROSS JOIN LATERAL jsonb_populate_record(messages, jsonb_build_object(
    'id', message.new, 'chat_id', $1::uuid, 'turn_id', turn.new, 'parent_id', parent.new
)) AS copy
"""
# Steps belong to the answer: a question that is copied without it has none.
_OF_ANSWERS: Final = """
FROM unnest($2::uuid[], $3::uuid[]) AS turn (old, new)
JOIN turns ON turns.id = turn.old AND assistant_message_id = ANY ($4::uuid[])
"""
_STEPS: Final = f"""
INSERT INTO steps SELECT copy.* {_OF_ANSWERS}
JOIN steps ON steps.turn_id = turn.old
CROSS JOIN LATERAL jsonb_populate_record(steps, jsonb_build_object(
    'turn_id', turn.new, 'run_id', '', 'activity_id', ''
)) AS copy
WHERE $1::uuid IS NOT NULL AND $5::uuid[] IS NOT NULL
"""
_CALLS: Final = f"""
INSERT INTO tool_calls SELECT copy.* {_OF_ANSWERS}
JOIN tool_calls ON tool_calls.turn_id = turn.old
CROSS JOIN LATERAL jsonb_populate_record(tool_calls, jsonb_build_object(
    'turn_id', turn.new, 'cost_usd', 0, 'callback_id', NULL, 'callback_until', NULL
)) AS copy
WHERE $1::uuid IS NOT NULL AND $5::uuid[] IS NOT NULL
"""

# Files are shared: one goes with its last attachment.
_ATTACHMENTS: Final = f"""
INSERT INTO attachments SELECT copy.*
FROM attachments
LEFT JOIN unnest($4::uuid[], $5::uuid[]) AS message (old, new) ON message.old = message_id
LEFT JOIN (SELECT turn.old, turn.new {_OF_ANSWERS}) AS turn ON turn.old = attachments.turn_id
CROSS JOIN LATERAL jsonb_populate_record(attachments, jsonb_build_object(
    'id', gen_random_uuid(), 'message_id', message.new, 'turn_id', turn.new
)) AS copy
WHERE $1::uuid IS NOT NULL
  AND (attachments.message_id = ANY ($4::uuid[]) OR attachments.turn_id = ANY ($2::uuid[]))
  AND num_nonnulls(message.new, turn.new) = 1
"""  # noqa: S608 -- parts of our own

# A summary takes the id of its message's copy: these are in the order of the conversation.
_SUMMARIES: Final = """
INSERT INTO chat_summaries SELECT copy.*
FROM unnest($4::uuid[], $5::uuid[]) AS message (old, new)
JOIN chat_summaries ON message_id = message.old
CROSS JOIN LATERAL jsonb_populate_record(chat_summaries, jsonb_build_object(
    'id', message.new, 'chat_id', $1::uuid, 'message_id', message.new
)) AS copy
WHERE $2::uuid[] IS NOT NULL AND $3::uuid[] IS NOT NULL
"""

_IMPORT_TURNS: Final = """
INSERT INTO turns (id, chat_id, user_id, origin, status, active, model, user_message_id,
                   assistant_message_id, created_at, started_at, finished_at)
SELECT id, $1, $2, 'imported', CASE WHEN answer IS NULL THEN 'cancelled' ELSE 'completed' END,
       false, $3, question, answer, said_at, said_at, said_at
FROM unnest($4::uuid[], $5::uuid[], $6::uuid[], $7::timestamptz[])
     AS turn (id, question, answer, said_at)
"""
_IMPORT_MESSAGES: Final = """
INSERT INTO messages (chat_id, user_id, work_tokens, brief_tokens,
                      id, turn_id, parent_id, role, content, tokens, created_at)
SELECT $1, $2, 0, 0, * FROM unnest($3::uuid[], $4::uuid[], $5::uuid[], $6::text[], $7::text[],
                             $8::integer[], $9::timestamptz[])
"""

_CREATE_CHAT: Final = """
INSERT INTO chats (id, user_id, title) VALUES ($1, $2, $3)
"""
_SHOW: Final = "UPDATE chats SET leaf_id = $2 WHERE id = $1"


class _Fork(BaseModel):
    """What a key stands for: the same request about another chat is another one."""

    chat_id: UUID
    request: ForkChatRequest


class _Imported(NamedTuple):
    """A message of an imported conversation, in the order of its columns."""

    id: UUID
    turn_id: UUID
    parent_id: UUID | None
    role: str
    content: str
    tokens: int
    created_at: datetime


class _Turn(NamedTuple):
    """A turn of an imported conversation, in the order of its columns."""

    id: UUID
    question: UUID
    answer: UUID | None
    said_at: datetime


class ConversationCopies:
    """Copies branches into chats of their own, and imports conversations.

    `model` is that of imported turns. Errors: DatabaseUnavailableError.
    """

    def __init__(self, database: Database, *, model: str) -> None:
        self._database = database
        self._model = model

    async def fork(
        self, actor: Actor, chat_id: ChatId, request: ForkChatRequest, *, key: str | None
    ) -> Result[Chat, Conflict | Unreachable | BranchRefusal]:
        """Copy a branch up to a message, by default the whole current one, into a new chat.

        Idempotency: retrying with the same key and request returns the chat created before.
        """

        async def fill(
            connection: AsyncConnection, new_chat: ChatId
        ) -> Result[UUID | None, Unreachable | BranchRefusal]:
            chat = (await connection.exec_driver_sql(_LOCK, (chat_id,))).one_or_none()
            if chat is None:
                return Err(Unreachable.MISSING)
            last = request.message_id or chat.leaf_id
            branch = (await connection.exec_driver_sql(_BRANCH, (chat_id, last))).all()
            if request.message_id is not None and not branch:
                return Err(BranchRefusal.UNKNOWN_MESSAGE)
            await _create_chat(connection, actor, new_chat, request.title or chat.title)
            return Ok(await _copy(connection, new_chat, branch, last=last))

        forked = await self._create(
            actor, key, request=_Fork(chat_id=chat_id, request=request), fill=fill
        )
        if isinstance(forked, Err) and forked.error is Unreachable.MISSING:
            return Err(await why_unreachable(self._database, ChatRow, chat_id))
        return forked

    async def import_chat(
        self, actor: Actor, request: CreateChatRequest, *, key: str | None
    ) -> Result[Chat, Conflict | Unreachable]:
        """Create a chat that holds a conversation from elsewhere.

        Idempotency: retrying with the same key and request returns the chat created before.
        """

        async def fill(
            connection: AsyncConnection, new_chat: ChatId
        ) -> Result[UUID | None, Unreachable]:
            await _create_chat(connection, actor, new_chat, request.title or "")
            imported = imported_messages(request.messages)
            return Ok(await _store(connection, actor, new_chat, imported, model=self._model))

        return await self._create(actor, key, request=request, fill=fill)

    async def _create(
        self,
        actor: Actor,
        key: str | None,
        *,
        request: BaseModel,
        fill: Callable[[AsyncConnection, ChatId], Awaitable[Result[UUID | None, E]]],
    ) -> Result[Chat, E | Conflict | Unreachable]:
        """Create a chat, fill it and show its last message, all or nothing."""
        new_chat = ChatId(new_id())

        async def create(session: AsyncSession) -> Result[Chat | None, E]:
            connection = await session.connection()
            filled = await fill(connection, new_chat)
            if isinstance(filled, Err):
                return filled
            await connection.exec_driver_sql(_SHOW, (new_chat, filled.value))
            return Ok(None)

        async def find(earlier: str) -> Result[Chat | None, Unreachable]:
            return await get_chat(self._database, actor, ChatId(UUID(earlier)))

        stored = await create_once(
            self._database,
            actor,
            key,
            request=request,
            resource_id=new_chat,
            create=create,
            find=find,
        )
        if isinstance(stored, Err):
            return stored
        if stored.value is not None:
            return Ok(stored.value)
        return await get_chat(self._database, actor, new_chat)


async def _create_chat(
    connection: AsyncConnection, actor: Actor, chat_id: ChatId, title: str
) -> None:
    await connection.exec_driver_sql(_CREATE_CHAT, (chat_id, actor.user_id, title))


async def _copy(
    connection: AsyncConnection,
    new_chat: ChatId,
    branch: Sequence[Any],
    *,
    last: UUID | None,
) -> UUID | None:
    """Copy the rows of a branch, and return the copy of its last message."""
    # New ids in the order of the old ones: that is the order of the conversation.
    turns = {old: new_id() for old in sorted({row.turn_id for row in branch})}
    said = sorted((row.turn_id, row.id) for row in branch if row.is_message)
    messages = {old: new_id() for _, old in said}
    copies = (new_chat, list(turns), list(turns.values()), list(messages), list(messages.values()))
    for statement in (_TURNS, _MESSAGES, _STEPS, _CALLS, _ATTACHMENTS, _SUMMARIES):
        await connection.exec_driver_sql(statement, copies)
    return None if last is None else messages.get(last)


def imported_messages(messages: Sequence[ImportedMessage]) -> list[ImportedMessage]:
    """Return the messages as a conversation: questions and answers take turns.

    Blank ones are left out, and what one side says in several messages becomes one.
    """
    conversation: list[ImportedMessage] = []
    for message in messages:
        if not message.content.strip():
            continue
        if conversation and conversation[-1].role is message.role:
            joined = f"{conversation[-1].content}\n\n{message.content}"
            conversation[-1] = conversation[-1].model_copy(update={"content": joined})
        else:
            conversation.append(message)
    return conversation


async def _store(
    connection: AsyncConnection,
    actor: Actor,
    chat_id: ChatId,
    messages: Sequence[ImportedMessage],
    *,
    model: str,
) -> UUID | None:
    """Store a conversation in an empty chat, a turn for each question, and return its end."""
    stored: list[_Imported] = []
    turns: list[_Turn] = []
    for message in messages:
        asks = message.role is MessageRole.USER
        said_at, message_id = message.created_at or utc_now(), new_id()
        if asks or not turns:
            # An answer that begins the conversation has no question: its id belongs to none.
            turns.append(_Turn(new_id(), message_id if asks else new_id(), None, said_at))
        if not asks:
            turns[-1] = turns[-1]._replace(answer=message_id)
        stored.append(
            _Imported(
                message_id,
                turns[-1].id,
                stored[-1].id if stored else None,
                message.role.value,
                message.content,
                tokens_of(message.content),
                said_at,
            )
        )
    values = (chat_id, actor.user_id)
    await connection.exec_driver_sql(_IMPORT_TURNS, (*values, model, *_columns(turns, _Turn)))
    await connection.exec_driver_sql(_IMPORT_MESSAGES, (*values, *_columns(stored, _Imported)))
    return stored[-1].id if stored else None


def _columns(rows: Sequence[tuple[Any, ...]], row: type[tuple[Any, ...]]) -> list[list[Any]]:
    """Return rows by their columns, as `unnest` takes them."""
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in row._fields]  # type: ignore[attr-defined]  # a NamedTuple
