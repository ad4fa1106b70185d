"""Tool calls as a model requests them, stored together with the answer that does."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from schema.contexts import OfferedTool
from schema.ids import TurnId, UserId
from schema.tools import ApprovalPolicy
from schema.turns import StepStatus
from schema.usage import TokenUsage
from services.database import Connection
from services.turns import step_statements as sql


class RequestedCall(NamedTuple):
    """A stored tool call, and whether it needs approval."""

    id: str
    name: str
    needs_approval: bool


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """A tool call as the model requested it; `problem` is why it can't be run."""

    id: str
    name: str
    input: dict[str, Any]
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """The stored result of a completed step.

    `problem` is why it does not fit the turn's schema, `is_correction` whether it corrects another.
    """

    attempt: int
    stop_reason: str
    tool_calls: tuple[RequestedCall, ...]
    usage: TokenUsage
    cost_usd: Decimal
    problem: str | None = None
    is_correction: bool = False


async def store_requests(
    connection: Connection,
    requests: Sequence[ToolRequest],
    offered: Iterable[OfferedTool],
    *,
    turn_id: TurnId,
    step: int,
    user_id: UserId,
) -> tuple[RequestedCall, ...]:
    """Store the tool calls; return with each whether it needs approval."""
    if not requests:
        return ()
    policies = {tool.name: tool.approval for tool in offered}
    rows = [
        (
            *(turn_id, step, request.id, user_id, position, request.name),
            *(request.input, policies.get(request.name, ApprovalPolicy.AUTO).value),
            request.problem,
        )
        for position, request in enumerate(requests)
    ]
    await connection.executemany(sql.REQUEST_TOOL, rows)
    to_approve: set[str] = set()
    if ApprovalPolicy.ASK in {policies.get(request.name) for request in requests}:
        found = await connection.fetch(sql.TO_APPROVE, turn_id, step)
        to_approve = {row["tool_call_id"] for row in found}
    return tuple(
        RequestedCall(request.id, request.name, request.id in to_approve) for request in requests
    )


def invalid_tools(requests: Sequence[ToolRequest], offered: Iterable[OfferedTool]) -> Sequence[str]:
    """Return the tool of each call that can't be run; a name that was not offered is `unknown`."""
    names = {tool.name for tool in offered}
    invalid = (request.name for request in requests if request.problem is not None)
    return [name if name in names else "unknown" for name in invalid]


async def stored_answer(connection: Connection, turn_id: TurnId, step: int) -> StoredAnswer | None:
    """Return the answer of a step that could not be claimed, if it has one."""
    row = await connection.fetchrow(sql.STORED, turn_id, step)
    if row is None or row["status"] != StepStatus.COMPLETED:
        return None
    calls = await connection.fetch(sql.CALLS_BEFORE, turn_id, step + 1)
    return StoredAnswer(
        attempt=row["attempt"],
        stop_reason=row["stop_reason"] or "",
        tool_calls=tuple(
            RequestedCall(call["tool_call_id"], call["name"], call["approval"] == "ask")
            for call in calls
            if call["step"] == step
        ),
        usage=TokenUsage(
            input_tokens=row["input_tokens"],
            output_tokens=row["output_tokens"],
            cache_read_tokens=row["cache_read_tokens"],
            cache_write_tokens=row["cache_write_tokens"],
        ),
        cost_usd=row["cost_usd"],
        problem=row["problem"],
        is_correction=row["is_correction"],
    )
