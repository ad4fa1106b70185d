"""Owns what follows from a whole answer: the tool calls it asks for, and what clients are told."""

import re
from collections.abc import Collection, Sequence
from typing import Any, Final
from uuid import uuid4

from schema.events import EventData, NoticeEvent, ToolCallEvent
from schema.turns import ToolCallStatus
from services.models.gateway import AnswerEnded
from services.turns.steps import ToolRequest

_USABLE_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,100}")

_NO_OBJECT: Final = (
    "The input of this call was no JSON object, or not a whole one, so it was not made. Call the "
    "tool again with its whole input as one JSON object."
)

# Ends of an answer that a person should know of: the text is not all that it could be.
_NOTICES: Final = {
    "max_tokens": "The answer was cut off at the limit for its length.",
    "refusal": "The model declined to go on.",
    "model_context_window_exceeded": "The conversation has filled the model's context.",
}


def tool_requests(
    blocks: list[dict[str, Any]], unreadable: Collection[str] = ()
) -> list[ToolRequest]:
    """Return the tool calls of an answer; ids that can't be keys are replaced in the blocks."""
    requests: list[ToolRequest] = []
    seen: set[str] = set()
    for block in blocks:
        if block["type"] != "tool_use":
            continue
        problem = _NO_OBJECT if block["id"] in unreadable else None
        if block["id"] in seen or not _USABLE_ID.fullmatch(block["id"]):
            block["id"] = f"toolu_{uuid4().hex}"
        seen.add(block["id"])
        requests.append(ToolRequest(block["id"], block["name"], block["input"], problem))
    return requests


def closing_events(
    step: int, answer: AnswerEnded, requests: Sequence[ToolRequest]
) -> list[EventData]:
    """Return what clients are told behind the text and its usage."""
    events: list[EventData] = [
        ToolCallEvent(
            step=step,
            tool_call_id=request.id,
            name=request.name,
            status=ToolCallStatus.REQUESTED,
            input=request.input,
        )
        for request in requests
    ]
    notice = _NOTICES.get(answer.stop_reason)
    if notice is not None:
        events.append(NoticeEvent(code=answer.stop_reason, message=notice))
    return events


def fallback_notice(model: str) -> NoticeEvent:
    """Return the notice that another model answers than the one asked for."""
    return NoticeEvent(
        code="fallback_model", message=f"The model was not available; {model} answers instead."
    )
