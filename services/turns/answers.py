"""What a model's answer means for its turn: the tool calls that it asks for, and its notices."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final
from uuid import uuid4

from schema.contexts import OfferedTool
from schema.events import (
    EventData,
    MessageJoinedEvent,
    NoticeEvent,
    ToolCallEvent,
    UsageEvent,
)
from schema.turns import PAUSED, ToolCallStatus
from schema.usage import TokenUsage
from services.events.snapshots import event_input
from services.models.gateway import AnswerEnded
from services.tools.offered_schema import names_of_input
from services.tools.refusals import left_out_words
from services.turns.attempts import NewAttempt
from services.turns.requested_calls import ToolRequest

_USABLE_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,100}")

_NO_OBJECT: Final = (
    "The input of this call was not a complete JSON object, so the tool was not run. Call the "
    "tool again with its complete input as one JSON object."
)
_TOO_LARGE: Final = "The input of this call was too large, so the tool was not run."
_TOO_MANY: Final = (
    "Too many tool calls at once: only the first {} were run. Make this call again in your next "
    "answer if you still need it."
)

# Stop reasons that the user should know: the text may be incomplete.
_NOTICES: Final = {
    "max_tokens": "The answer was cut off at the limit for its length.",
    "refusal": "The model refused to continue.",
    "model_context_window_exceeded": "The conversation fills the model's context window.",
}
_WHOLE: Final = frozenset({"end_turn", "stop_sequence", PAUSED})
_UNKNOWN: Final = "unknown"
_STOPPED: Final = NoticeEvent(
    code="unknown_stop_reason",
    message="The model stopped for an unknown reason; the answer may be incomplete.",
)
_EMPTY: Final = NoticeEvent(code="empty_answer", message="The model returned an empty answer.")


def tool_requests(
    answer: AnswerEnded, offered: Iterable[OfferedTool] = (), *, at_most: int
) -> list[ToolRequest]:
    """Return the tool calls of an answer; ids that can't be keys are replaced in its blocks.

    Their inputs are in the tools' own names; the blocks, which the model sees again, in its.
    Calls behind the first `at_most` are requests with a problem: each needs a result.
    """
    schemas = {tool.name: tool.input_schema for tool in offered}
    requests: list[ToolRequest] = []
    seen: set[str] = set()
    for block in answer.blocks:
        if block["type"] != "tool_use":
            continue
        problem = _NO_OBJECT if block["id"] in answer.unreadable else None
        if len(requests) >= at_most:
            problem = _TOO_MANY.format(at_most)
        if block["id"] in seen or not _USABLE_ID.fullmatch(block["id"]):
            block["id"] = f"toolu_{uuid4().hex}"
        seen.add(block["id"])
        names = names_of_input(schemas.get(block["name"], {}))
        tool_input = names.for_tool(block["input"])
        if tool_input is None:
            problem, tool_input = problem or _TOO_LARGE, block["input"]
        requests.append(ToolRequest(block["id"], block["name"], tool_input, problem))
    return requests


def closing_events(
    step: int,
    answer: AnswerEnded,
    requests: Sequence[ToolRequest],
    *,
    at_most: int,
    has_text: bool,
) -> list[EventData]:
    """Return the events after the text and its usage; `has_text` says whether the turn has any.

    Calls behind the first `at_most` have failed already: no workflow hears of them.
    """
    events: list[EventData] = [
        _tool_call(step, request, has_failed=position >= at_most)
        for position, request in enumerate(requests)
    ]
    notice = _notice_of(answer.stop_reason, calls_tools=bool(requests), has_text=has_text)
    return events if notice is None else [*events, notice]


def stop_word(stop_reason: str) -> str:
    """Return the stop reason for a workflow's history, which takes no word of a provider's."""
    return stop_reason if stop_reason in {*_WHOLE, *_NOTICES, "tool_use"} else _UNKNOWN


def ends_turn(answer: AnswerEnded, requests: Sequence[ToolRequest]) -> bool:
    """Return whether nothing follows the answer, unless it has to be corrected."""
    return not requests and answer.stop_reason != PAUSED


def contains_text(blocks: Iterable[Mapping[str, Any]]) -> bool:
    """Whether any of the blocks has text to show."""
    return any(block["type"] == "text" and block["text"].strip() for block in blocks)


def _tool_call(step: int, request: ToolRequest, *, has_failed: bool) -> ToolCallEvent:
    return ToolCallEvent(
        step=step,
        tool_call_id=request.id,
        name=request.name,
        status=ToolCallStatus.FAILED if has_failed else ToolCallStatus.REQUESTED,
        **event_input(request.input),
        output=request.problem if has_failed else None,
    )


def _notice_of(stop_reason: str, *, calls_tools: bool, has_text: bool) -> NoticeEvent | None:
    """Return what the user should know of the way in which an answer ended.

    One that calls tools is continued, whatever its reason; a reason to call tools without any call
    is as good as an unknown one.
    """
    if stop_reason in _NOTICES:
        return NoticeEvent(code=stop_reason, message=_NOTICES[stop_reason])
    if calls_tools or stop_reason == PAUSED:
        return None
    if stop_reason not in _WHOLE:
        return _STOPPED
    return None if has_text else _EMPTY


SHORT_OF_BUDGET: Final = NoticeEvent(
    code="budget_shortens_answer",
    message="The budget is nearly used up: the answer may be shorter than usual.",
)
SHORTENED: Final = NoticeEvent(
    code="conversation_shortened",
    message="The conversation is too long for the model: its oldest part was left out.",
)


def joined_events(attempt: NewAttempt) -> list[EventData]:
    """Return the events of the messages that joined the turn before the attempt's step."""
    return [
        MessageJoinedEvent(
            step=message.step, message_id=message.message_id, turn_id=message.turn_id
        )
        for message in attempt.joined
    ]


def misfit_notice(problem: str) -> NoticeEvent:
    """Return the notice that the answer does not fit the turn's schema."""
    return NoticeEvent(code="VALIDATION", message=f"The answer does not fit the schema: {problem}.")


def left_out_notice(tools: Collection[str]) -> NoticeEvent:
    """Return the notice that the provider refused some tools."""
    return NoticeEvent(code="tools_left_out", message=left_out_words(tools))


def fallback_notice(model: str) -> NoticeEvent:
    """Return the notice that the fallback model answers."""
    return NoticeEvent(
        code="fallback_model", message=f"The model is unavailable; {model} answers instead."
    )


def usage_event(attempt: NewAttempt, usage: TokenUsage, cost_usd: Decimal) -> UsageEvent:
    """Return the event of what an attempt used and cost."""
    return UsageEvent(
        step=attempt.key.step,
        attempt=attempt.key.attempt,
        model=attempt.model,
        **usage.model_dump(),
        cost_usd=cost_usd,
    )
