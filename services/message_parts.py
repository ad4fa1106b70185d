"""What clients read of a message: its parts in order, citations, model, usage and cost.

Steps, tool calls, the ledger and the turn's context hold all of it, so it is the same for answers
of early releases. The columns below belong into a query of `messages`; each answer costs a few
look-ups by primary key.
"""

from collections.abc import Iterator
from decimal import Decimal
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import literal_column
from sqlalchemy import select as select_columns

from schema.chats import Message, MessageOutline, MessageRole
from schema.contexts import SourceType
from schema.errors import RETRYABLE, ErrorCode
from schema.feedback import Feedback
from schema.message_parts import (
    AttachmentPart,
    Citation,
    CitationType,
    JoinedMessagePart,
    MessagePart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
)
from schema.tables import MessageRow
from schema.turns import TurnError
from schema.usage import TokenUsage

MAX_OUTPUT_CHARS: Final = 4096
"""How much of a tool call's output a part shows."""

MAX_INPUT_BYTES: Final = 32 * 1024
"""As in events: a longer input is left out."""

_TITLE_CHARS: Final = 120

_CITATIONS: Final = f"""
SELECT jsonb_agg(source || jsonb_build_object('title', coalesce(source ->> 'title',
    CASE source ->> 'type'
        WHEN '{SourceType.DOCUMENT}' THEN (
            SELECT title FROM documents WHERE id = (source ->> 'id')::uuid)
        ELSE (SELECT left(content, {_TITLE_CHARS}) FROM memories
              WHERE id = (source ->> 'id')::uuid)
    END)) ORDER BY place)
FROM turn_contexts, jsonb_array_elements(sources) WITH ORDINALITY AS quoted (source, place)
WHERE turn_contexts.turn_id = turns.id
"""  # noqa: S608 -- constants of ours

# The error of a turn without an answer is shown with its question.
OUTLINE: Final = f"""
(SELECT jsonb_build_object(
    'error_code', turns.error_code, 'error_message', turns.error_message,
    'answer', CASE WHEN messages.role = '{MessageRole.ASSISTANT}' THEN jsonb_build_object(
        'model', coalesce(last.model, turns.model), 'stop_reason', last.stop_reason,
        'input_tokens', turns.input_tokens, 'output_tokens', turns.output_tokens,
        'cache_read_tokens', turns.cache_read_tokens,
        'cache_write_tokens', turns.cache_write_tokens,
        'cost_usd', turns.cost_usd::text,
        'started_at', turns.started_at, 'finished_at', turns.finished_at,
        'sources', ({_CITATIONS})
    ) END)
FROM turns LEFT JOIN LATERAL (
    SELECT model, stop_reason FROM steps WHERE steps.turn_id = turns.id ORDER BY step DESC LIMIT 1
) AS last ON messages.role = '{MessageRole.ASSISTANT}'
WHERE turns.id = messages.turn_id
  AND (messages.role = '{MessageRole.ASSISTANT}'
       OR turns.user_message_id = messages.id AND turns.assistant_message_id IS NULL))
"""  # noqa: S608 -- as above
"""The column `outline`: everything about an answer but its parts."""

_ATTACHED: Final = """
SELECT jsonb_agg(jsonb_build_object(
    'file_id', attachments.file_id, 'name', attachments.name,
    'content_type', attachments.content_type, 'size', attachments.size, 'deleted', NOT EXISTS (
        SELECT FROM files WHERE files.id = attachments.file_id AND files.user_id = messages.user_id)
    ) ORDER BY attachments.position)
FROM attachments WHERE"""

# Texts are cut out of the message, so the database sends each of them once.
PARTS: Final = f"""
CASE WHEN messages.role = '{MessageRole.ASSISTANT}' THEN jsonb_build_object(
    'joined', (SELECT jsonb_agg(jsonb_build_object(
        'step', joined_step, 'message_id', user_message_id) ORDER BY turns.id)
     FROM turns WHERE steers = messages.turn_id AND joined_step IS NOT NULL),
    'steps', (SELECT jsonb_agg(jsonb_build_object(
        'step', step, 'chars', length(text), 'thinking', thinking) ORDER BY step)
     FROM steps WHERE steps.turn_id = messages.turn_id),
    'calls', (SELECT jsonb_agg(jsonb_build_object(
        'step', step, 'tool_call_id', tool_call_id, 'name', name, 'status', status,
        'input', CASE WHEN input_bytes <= {MAX_INPUT_BYTES} THEN given END,
        'input_bytes', CASE WHEN input_bytes > {MAX_INPUT_BYTES} THEN input_bytes END,
        'output', left(output, {MAX_OUTPUT_CHARS}),
        'output_truncated', coalesce(length(output), 0) > {MAX_OUTPUT_CHARS},
        'cost_usd', (
            SELECT coalesce(sum(ledger.cost_usd), 0)::text FROM ledger
            WHERE ledger.turn_id = tool_calls.turn_id AND ledger.step = tool_calls.step
              AND ledger.kind = 'tool' AND ledger.tool_call_id = tool_calls.tool_call_id),
        'started_at', started_at, 'ended_at', finished_at,
        'attachments', ({_ATTACHED} attachments.turn_id = tool_calls.turn_id
            AND attachments.step = tool_calls.step
            AND attachments.tool_call_id = tool_calls.tool_call_id)
        ) ORDER BY step, position)
     FROM tool_calls
     CROSS JOIN LATERAL (SELECT coalesce(edited_input, input) AS given) AS chosen
     CROSS JOIN LATERAL (SELECT octet_length(given::text) AS input_bytes) AS sized
     WHERE tool_calls.turn_id = messages.turn_id)
) ELSE jsonb_build_object('attachments', ({_ATTACHED} attachments.message_id = messages.id)) END
"""  # noqa: S608 -- as above
"""The column `parts`."""

OUTLINED: Final[Any] = select_columns(MessageRow, literal_column(OUTLINE).label("outline"))
"""The query of messages without their parts."""

_FEEDBACK: Final = """
(SELECT jsonb_build_object('rating', rating, 'reason', reason, 'text', text,
                           'created_at', created_at, 'updated_at', updated_at)
 FROM feedback WHERE feedback.message_id = messages.id)
"""

SHOWN: Final[Any] = OUTLINED.add_columns(
    literal_column(PARTS).label("parts"), literal_column(_FEEDBACK).label("feedback")
)
"""The query of messages with their parts."""


def outline_from_row(row: Any) -> MessageOutline:  # noqa: ANN401 -- a row of OUTLINED
    """Return the message without its parts."""
    return MessageOutline(**_outlined(row))


def message_from_row(row: Any) -> Message:  # noqa: ANN401 -- a row of SHOWN
    """Return the message with its parts."""
    feedback = row["feedback"]
    return Message(
        **_outlined(row),
        parts=list(_parts(row["content"], row["parts"])),
        feedback=None if feedback is None else Feedback(**feedback),
        sibling_ids=row.get("sibling_ids"),
    )


def _outlined(row: Any) -> dict[str, Any]:  # noqa: ANN401 -- as above
    outline = row["outline"] or {}
    answer = outline.get("answer")
    shown = {name: row[name] for name in _OWN_FIELDS}
    shown |= {"metadata": row["client_metadata"], "error": _error(outline)}
    if answer is None:
        return shown
    return {
        **shown,
        "model": answer["model"],
        "stop_reason": answer["stop_reason"],
        "usage": TokenUsage(**{name: answer[name] for name in TokenUsage.model_fields}),
        "cost_usd": Decimal(answer["cost_usd"]),
        "started_at": answer["started_at"],
        "finished_at": answer["finished_at"],
        "citations": [_citation(source) for source in answer["sources"] or ()],
    }


_OWN_FIELDS: Final = (
    *("id", "chat_id", "turn_id", "parent_id", "role", "content", "status", "created_at"),
    *("structured", "joined_step"),
)


def _error(outline: dict[str, Any]) -> TurnError | None:
    if outline.get("error_code") is None:
        return None
    code = ErrorCode(outline["error_code"])
    message = outline["error_message"] or ""
    return TurnError(code=code, message=message, retryable=code in RETRYABLE)


def _citation(source: dict[str, Any]) -> Citation:
    if source["type"] == SourceType.MEMORY:
        title = source["title"]
        return Citation(
            type=CitationType.MEMORY, id=source["id"], title=title, score=source["score"]
        )
    return Citation(
        type=CitationType.PASSAGE,
        id=source.get("passageId"),
        document_id=source["id"],
        version=source.get("version"),
        title=source["title"],
        score=source["score"],
    )


def _parts(content: str, stored: dict[str, Any] | None) -> Iterator[MessagePart]:
    """Yield each step's thinking, text and tool calls, as a client shows them from the events."""
    stored = stored or {}
    for attached in stored.get("attachments") or ():
        yield AttachmentPart(**attached)
    if "steps" not in stored:
        yield TextPart(text=content)
        return
    steps = {step["step"]: step for step in stored.get("steps") or ()}
    calls, joined = (
        {
            number: list(of_step)
            for number, of_step in groupby(stored.get(name) or (), key=itemgetter("step"))
        }
        for name in ("calls", "joined")
    )
    if sum(step["chars"] for step in steps.values()) != len(content):
        # It was not said by steps: a question, or an imported answer.
        steps = {0: {"chars": len(content), "thinking": ""}}
    start = 0
    for number in sorted({*steps, *calls, *joined}):
        for message in joined.get(number, ()):
            yield JoinedMessagePart(**message)
        step = steps.get(number, _NOTHING_SAID)
        if step["thinking"]:
            yield ThinkingPart(text=step["thinking"])
        if step["chars"]:
            yield TextPart(text=content[start : start + step["chars"]])
        start += step["chars"]
        yield from map(_tool_call, calls.get(number, ()))


_NOTHING_SAID: Final = {"chars": 0, "thinking": ""}


def _tool_call(call: dict[str, Any]) -> ToolCallPart:
    has_failed = call["status"] in {"failed", "denied"}
    shown = {**call, "attachments": call["attachments"] or []}
    return ToolCallPart(**shown, error=call["output"] if has_failed else None)
