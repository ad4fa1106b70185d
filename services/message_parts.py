"""What clients read of a message: its parts in order, citations, model, usage and cost.

Steps, tool calls, the ledger and the turn's context hold all of it, so it is the same for answers
of early releases. The columns below belong into a query of `messages`; each answer costs a few
look-ups by primary key. Each is a whole message as JSON, in the fields of `Message`: reading rows
column by column, and part by part, took three times as long.
"""

import json
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from sqlalchemy import literal_column
from sqlalchemy import select as select_columns
from sqlmodel import col

from schema.chats import Message, MessageOutline, MessageRole
from schema.contexts import SourceType
from schema.errors import RETRYABLE
from schema.message_parts import CitationType
from schema.tables import MessageRow

M = TypeVar("M", bound=MessageOutline)

MAX_OUTPUT_CHARS: Final = 4096
"""How much of a tool call's output a part shows."""

MAX_INPUT_BYTES: Final = 32 * 1024
"""As in events: a longer input is left out."""

_TITLE_CHARS: Final = 120
_RETRYABLE: Final = ", ".join(f"'{code}'" for code in sorted(RETRYABLE))

_CITATIONS: Final = f"""
SELECT json_agg(CASE source ->> 'type'
    WHEN '{SourceType.MEMORY}' THEN json_build_object(
        'type', '{CitationType.MEMORY}', 'id', source -> 'id', 'score', source -> 'score',
        'title', coalesce(source ->> 'title', (
            SELECT left(content, {_TITLE_CHARS}) FROM memories
            WHERE memories.id = (source ->> 'id')::uuid)))
    ELSE json_build_object(
        'type', '{CitationType.PASSAGE}', 'id', source -> 'passageId', 'score', source -> 'score',
        'document_id', source -> 'id', 'version', source -> 'version',
        'title', coalesce(source ->> 'title', (
            SELECT title FROM documents WHERE documents.id = (source ->> 'id')::uuid)))
    END ORDER BY place)
FROM turn_contexts, jsonb_array_elements(sources) WITH ORDINALITY AS quoted (source, place)
WHERE turn_contexts.turn_id = turns.id
"""  # noqa: S608 -- constants of ours

_OUTLINE: Final = f"""
    'id', messages.id, 'chat_id', messages.chat_id, 'turn_id', messages.turn_id,
    'parent_id', messages.parent_id, 'role', messages.role, 'content', messages.content,
    'status', messages.status, 'created_at', messages.created_at,
    'metadata', messages.client_metadata, 'structured', messages.structured,
    'joined_step', messages.joined_step,
    'error', CASE WHEN turns.error_code IS NOT NULL THEN json_build_object(
        'code', turns.error_code, 'message', coalesce(turns.error_message, ''),
        'retryable', turns.error_code IN ({_RETRYABLE})) END,
    'model', CASE WHEN is_answer THEN coalesce(last.model, turns.model) END,
    'stop_reason', last.stop_reason,
    'usage', CASE WHEN is_answer THEN json_build_object(
        'input_tokens', turns.input_tokens, 'output_tokens', turns.output_tokens,
        'cache_read_tokens', turns.cache_read_tokens,
        'cache_write_tokens', turns.cache_write_tokens) END,
    'cost_usd', CASE WHEN is_answer THEN turns.cost_usd::text END,
    'started_at', CASE WHEN is_answer THEN turns.started_at END,
    'finished_at', CASE WHEN is_answer THEN turns.finished_at END,
    'citations', coalesce(CASE WHEN is_answer THEN ({_CITATIONS}) END, '[]')
"""

# The error of a turn without an answer is shown with its question.
_SOURCES: Final = f"""
FROM (SELECT messages.role = '{MessageRole.ASSISTANT}' AS is_answer) AS kind
LEFT JOIN turns ON turns.id = messages.turn_id
    AND (is_answer OR turns.user_message_id = messages.id AND turns.assistant_message_id IS NULL)
LEFT JOIN LATERAL (
    SELECT model, stop_reason FROM steps WHERE steps.turn_id = turns.id ORDER BY step DESC LIMIT 1
) AS last ON is_answer
"""  # noqa: S608 -- as above

OUTLINE: Final = f"(SELECT json_build_object({_OUTLINE}) {_SOURCES})"
"""The column `outline`: a message without its parts."""

_ATTACHED: Final = """
SELECT json_agg(json_build_object(
    'type', 'attachment', 'file_id', attachments.file_id, 'name', attachments.name,
    'content_type', attachments.content_type, 'size', attachments.size, 'deleted', NOT EXISTS (
        SELECT FROM files WHERE files.id = attachments.file_id AND files.user_id = messages.user_id)
    ) ORDER BY attachments.position)
FROM attachments WHERE"""

_CALL: Final = f"""
json_build_object(
    'type', 'tool_call', 'step', step, 'tool_call_id', tool_call_id, 'name', name,
    'status', status,
    'input', CASE WHEN input_bytes <= {MAX_INPUT_BYTES} THEN given END,
    'input_bytes', CASE WHEN input_bytes > {MAX_INPUT_BYTES} THEN input_bytes END,
    'output', left(output, {MAX_OUTPUT_CHARS}),
    'output_truncated', coalesce(length(output), 0) > {MAX_OUTPUT_CHARS},
    'error', CASE WHEN status IN ('failed', 'denied') THEN left(output, {MAX_OUTPUT_CHARS}) END,
    'cost_usd', (
        SELECT coalesce(sum(ledger.cost_usd), 0)::text FROM ledger
        WHERE ledger.turn_id = tool_calls.turn_id AND ledger.step = tool_calls.step
          AND ledger.kind = 'tool' AND ledger.tool_call_id = tool_calls.tool_call_id),
    'started_at', started_at, 'ended_at', finished_at,
    'attachments', coalesce(({_ATTACHED} attachments.turn_id = tool_calls.turn_id
        AND attachments.step = tool_calls.step
        AND attachments.tool_call_id = tool_calls.tool_call_id), '[]'))
"""  # noqa: S608 -- as above

# As a client shows them from the events: for each step what joined the turn before it, its
# thinking, its text and its tool calls. Answers that no steps have said, e.g. imported ones, have
# one text.
_OF_ANSWER: Final = f"""
WITH said AS (SELECT step, text, thinking FROM steps WHERE steps.turn_id = messages.turn_id),
     whole AS (
         SELECT coalesce(sum(length(text)), 0) = length(messages.content) AS is_said FROM said)
SELECT json_agg(part ORDER BY step, place, joined) FROM (
    SELECT joined_step AS step, -3 AS place, id AS joined, json_build_object(
        'type', 'joined_message', 'step', joined_step, 'message_id', user_message_id) AS part
    FROM turns WHERE steers = messages.turn_id AND joined_step IS NOT NULL
    UNION ALL
    SELECT step, -2, NULL, json_build_object('type', 'thinking', 'text', thinking)
    FROM said, whole WHERE is_said AND thinking <> ''
    UNION ALL
    SELECT step, -1, NULL, json_build_object('type', 'text', 'text', text)
    FROM said, whole WHERE is_said AND text <> ''
    UNION ALL
    SELECT 0, -1, NULL, json_build_object('type', 'text', 'text', messages.content)
    FROM whole WHERE NOT is_said AND messages.content <> ''
    UNION ALL
    SELECT step, position, NULL, {_CALL}
    FROM tool_calls
    CROSS JOIN LATERAL (SELECT coalesce(edited_input, input) AS given) AS chosen
    CROSS JOIN LATERAL (SELECT octet_length(given::text) AS input_bytes) AS sized
    WHERE tool_calls.turn_id = messages.turn_id
) AS parts
"""  # noqa: S608 -- as above

_OF_QUESTION: Final = f"""
SELECT json_agg(part) FROM (
    SELECT part FROM json_array_elements(({_ATTACHED} attachments.message_id = messages.id)) AS part
    UNION ALL
    SELECT json_build_object('type', 'text', 'text', messages.content) WHERE messages.content <> ''
) AS parts
"""  # noqa: S608 -- as above

_FEEDBACK: Final = """
SELECT json_build_object('rating', rating, 'reason', reason, 'text', text,
                         'created_at', created_at, 'updated_at', updated_at)
FROM feedback WHERE feedback.message_id = messages.id
"""

_SIBLINGS: Final = """
SELECT json_agg(other.id ORDER BY other.id) FROM messages AS other
WHERE other.chat_id = messages.chat_id AND other.role = messages.role
  AND (other.parent_id = messages.parent_id
       OR other.parent_id IS NULL AND messages.parent_id IS NULL)
"""


def _shown(further: str = "") -> Any:  # noqa: ANN401 -- the mapper's own type
    return select_columns(
        col(MessageRow.id),
        col(MessageRow.turn_id),
        literal_column(
            f"(SELECT json_build_object({_OUTLINE}, 'feedback', ({_FEEDBACK}){further}, 'parts', "
            f"coalesce(CASE WHEN is_answer THEN ({_OF_ANSWER}) ELSE ({_OF_QUESTION}) END, '[]')"
            f") {_SOURCES})"
        ).label("shown"),
    )


OUTLINED: Final[Any] = select_columns(literal_column(OUTLINE).label("outline")).select_from(
    MessageRow
)
"""The query of messages without their parts."""

SHOWN: Final[Any] = _shown()
"""The query of messages with their parts."""

SHOWN_WITH_SIBLINGS: Final[Any] = _shown(f", 'sibling_ids', ({_SIBLINGS})")
"""The query of messages with their parts, and with what stands in the same place."""


def outline_from_row(row: Any) -> MessageOutline:  # noqa: ANN401 -- a row of OUTLINED
    """Return the message without its parts."""
    return _read(MessageOutline, row["outline"])


def message_from_row(row: Any) -> Message:  # noqa: ANN401 -- a row of SHOWN
    """Return the message with its parts."""
    return _read(Message, row["shown"])


def _read(kind: type[M], found: str) -> M:
    try:
        return kind.model_validate_json(found)
    except ValidationError:
        # Its parser stops at 200 levels; data of a client may have a few more.
        return kind.model_validate(json.loads(found))
