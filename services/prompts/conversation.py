"""Owns turning stored messages, steps and tool results into the messages of a model call."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from anthropic.types import MessageParam, ToolResultBlockParam

from schema.tables import MessageRow, StepRow, ToolCallRow
from schema.turns import ToolCallStatus

_NO_RESULT = "This call was not run."


def conversation(
    messages: Sequence[MessageRow], steps: Sequence[StepRow], calls: Sequence[ToolCallRow]
) -> list[MessageParam]:
    """Return the messages of a model call: the history, then the steps of this turn so far.

    Neighbours of one role are joined, as after an answer that never came.
    """
    turns: list[tuple[str, list[dict[str, Any]]]] = [
        (message.role, [{"type": "text", "text": message.content}])
        for message in messages
        if message.content.strip()
    ]
    by_step: dict[int, dict[str, ToolCallRow]] = {}
    for call in calls:
        by_step.setdefault(call.step, {})[call.tool_call_id] = call
    for step in steps:
        turns.append(("assistant", step.blocks))
        results = _results(step.blocks, by_step.get(step.step, {}))
        if results:
            turns.append(("user", results))
    return _joined(turns)


def _results(
    blocks: Iterable[Mapping[str, Any]], calls: Mapping[str, ToolCallRow]
) -> list[dict[str, Any]]:
    wanted = [block["id"] for block in blocks if block["type"] == "tool_use"]
    return [dict(_result(call_id, calls.get(call_id))) for call_id in wanted]


def _result(call_id: str, call: ToolCallRow | None) -> ToolResultBlockParam:
    if call is None or call.output is None:
        return {
            "type": "tool_result",
            "tool_use_id": call_id,
            "content": _NO_RESULT,
            "is_error": True,
        }
    return {
        "type": "tool_result",
        "tool_use_id": call_id,
        "content": call.output,
        "is_error": call.status != ToolCallStatus.COMPLETED,
    }


def _joined(turns: Iterable[tuple[str, list[dict[str, Any]]]]) -> list[MessageParam]:
    joined: list[tuple[str, list[dict[str, Any]]]] = []
    for role, blocks in turns:
        if not blocks:
            continue
        if joined and joined[-1][0] == role:
            joined[-1][1].extend(blocks)
        else:
            joined.append((role, list(blocks)))
    # The blocks are in the wire's own shape: they came from it, or were made for it above.
    return [cast("MessageParam", {"role": role, "content": blocks}) for role, blocks in joined]
