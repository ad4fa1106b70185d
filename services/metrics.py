"""Metrics of turns, steps, tools and budgets; alerts and dashboards depend on their names.

Each is counted behind the commit of the transaction that changed something, by the process that
made it. An activity that is repeated finds nothing to change and counts nothing, and workflows,
which are replayed, count nothing at all (docs/decisions/0050-metrics-count-behind-the-commit.md).
What a process that died had not stored is in the ledger alone.
"""

from collections.abc import Iterable
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from itertools import product
from typing import Final

from prometheus_client import Counter, Histogram

from schema.budgets import BudgetExceeded, BudgetScope, BudgetUnit, BudgetWindow
from schema.errors import ErrorCode
from schema.tables import ToolCallRow, TurnRow
from schema.turns import ToolCallDecision, TurnStatus
from schema.usage import TokenUsage

OTHER: Final = "other"
_NO_ERROR: Final = "none"
_MOST_TOOLS: Final = 200
_TURN_ERRORS: Final = (
    *(ErrorCode.INTERNAL, ErrorCode.MODEL_REJECTED, ErrorCode.MODEL_UNAVAILABLE),
    *(ErrorCode.SERVICE_UNAVAILABLE, ErrorCode.BUDGET_EXCEEDED),
)

# From a quick answer to one that thinks and calls tools; turns that wait for approval are beyond.
_TURN_BUCKETS: Final = (0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
_STEP_BUCKETS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)
_FIRST_TOKEN_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2.5, 5, 10, 30)
_WAIT_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 600)
_TOOL_BUCKETS: Final = (0.01, 0.05, 0.25, 1, 5, 15, 60, 300)


class Purpose(StrEnum):
    """What tokens were used and money was spent for."""

    ANSWER = "answer"
    TOOL = "tool"
    MEMORIES = "memories"
    TITLE = "title"
    COMPACTION = "compaction"


_models: Final[set[str]] = set()
_tools: Final[set[str]] = set()


def _model(name: str) -> str:
    """Return the label of a model: its name if it was expected."""
    return name if name in _models else OTHER


def _tool(name: str) -> str:
    """Return the label of a tool: its name, unless there have been too many.

    Administrators configure tools while the process runs, and servers of others name theirs as
    they like.
    """
    if name not in _tools:
        if len(_tools) >= _MOST_TOOLS:
            return OTHER
        _tools.add(name)
    return name


_TURNS: Final = Counter(
    "everturn_turns",
    "Turns that have ended, by status, first model and error code.",
    ("status", "model", "error"),
)
_TURN_DURATION: Final = Histogram(
    "everturn_turn_duration_seconds",
    "From a message to the end of its turn, waiting included.",
    ("status",),
    buckets=_TURN_BUCKETS,
)
_TURN_WAIT: Final = Histogram(
    "everturn_turn_wait_seconds",
    "From a message until its turn runs, behind earlier turns of its chat included.",
    buckets=_WAIT_BUCKETS,
)
_STEP_DURATION: Final = Histogram(
    "everturn_step_duration_seconds",
    "An attempt at a step: from its claim until the model's answer is stored.",
    ("model", "result"),
    buckets=_STEP_BUCKETS,
)
_FIRST_TOKEN: Final = Histogram(
    "everturn_time_to_first_token_seconds",
    "From a request to the model to the first text of its answer.",
    ("model",),
    buckets=_FIRST_TOKEN_BUCKETS,
)
_MODEL_FAILURES: Final = Counter(
    "everturn_model_failures",
    "Calls of a model that failed, by why.",
    ("model", "reason"),
)
_TOKENS: Final = Counter(
    "everturn_tokens",
    "Tokens by model, kind (input excludes what was read from a cache) and purpose.",
    ("model", "kind", "purpose"),
)
_COST: Final = Counter(
    "everturn_cost_usd",
    "What settled calls of models and paid tools cost; the label `model` may be a tool's name.",
    ("model", "purpose"),
)
_SAVINGS: Final = Counter(
    "everturn_cache_savings_usd",
    "What tokens read from the provider's cache would have cost more as input.",
    ("model",),
)
_TOOL_CALLS: Final = Counter(
    "everturn_tool_calls",
    "Tool calls that have ended, by tool and result.",
    ("tool", "result"),
)
_TOOL_DURATION: Final = Histogram(
    "everturn_tool_call_duration_seconds",
    "A tool call from its start to its stored result, retries included.",
    ("tool",),
    buckets=_TOOL_BUCKETS,
)
_BUDGET_REFUSALS: Final = Counter(
    "everturn_budget_refusals",
    "Requests and calls that a budget refused.",
    ("scope", "unit", "window"),
)


def expect(models: Iterable[str]) -> None:
    """Begin to count: of these models by name, and from zero where an alert waits for a first one.

    A series that appears with its first event has no increase that Prometheus could see.
    """
    _models.update(models)
    for model in _models:
        _TURNS.labels(TurnStatus.COMPLETED, model, _NO_ERROR)
        _TURNS.labels(TurnStatus.CANCELLED, model, _NO_ERROR)
        for code in _TURN_ERRORS:
            _TURNS.labels(TurnStatus.FAILED, model, code)
        _MODEL_FAILURES.labels(model, "credentials")
    for budget in product(BudgetScope, BudgetUnit, BudgetWindow):
        _BUDGET_REFUSALS.labels(*budget)


def count_turn(turn: TurnRow) -> None:
    """Count a turn that has just ended."""
    _TURNS.labels(turn.status, _model(turn.model), turn.error_code or _NO_ERROR).inc()
    if turn.finished_at is not None:
        _TURN_DURATION.labels(turn.status).observe(_seconds(turn.finished_at - turn.created_at))
    if turn.started_at is not None:
        _TURN_WAIT.observe(_seconds(turn.started_at - turn.created_at))


def count_step(model: str, result: str, *, duration_s: float) -> None:
    """Count an attempt at a step whose result has just been stored."""
    _STEP_DURATION.labels(_model(model), result).observe(duration_s)


def count_first_token(model: str, *, after_s: float) -> None:
    """Count the first text of a model's answer."""
    _FIRST_TOKEN.labels(_model(model)).observe(after_s)


def count_model_failure(model: str, reason: str) -> None:
    """Count a call that the provider failed."""
    _MODEL_FAILURES.labels(_model(model), reason).inc()


def count_charge(
    model: str,
    purpose: Purpose,
    *,
    usage: TokenUsage,
    cost_usd: Decimal,
    saved_usd: Decimal = Decimal(0),
) -> None:
    """Count what a call that has just been settled used and cost."""
    label = _tool(model) if purpose is Purpose.TOOL else _model(model)
    tokens = {
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "cache_read": usage.cache_read_tokens,
        "cache_write": usage.cache_write_tokens,
    }
    for kind, number in tokens.items():
        if number:
            _TOKENS.labels(label, kind, purpose).inc(number)
    _COST.labels(label, purpose).inc(float(cost_usd))
    if usage.cache_read_tokens:
        _SAVINGS.labels(label).inc(max(float(saved_usd), 0.0))


def count_tool_call(call: ToolCallRow, *, tool: str) -> None:
    """Count a tool call that has just ended; `tool` is its name, or `unknown`."""
    label, is_expired = _tool(tool), call.decision == ToolCallDecision.EXPIRED
    _TOOL_CALLS.labels(label, "expired" if is_expired else call.status).inc()
    if call.started_at is not None and call.finished_at is not None:
        _TOOL_DURATION.labels(label).observe(_seconds(call.finished_at - call.started_at))


def count_invalid_calls(tools: Iterable[str]) -> None:
    """Count tool calls that failed as the model made them."""
    for tool in tools:
        _TOOL_CALLS.labels(_tool(tool), "invalid").inc()


def count_budget_refusal(refusal: BudgetExceeded) -> None:
    """Count a request or call that a budget refused."""
    _BUDGET_REFUSALS.labels(refusal.scope, refusal.unit, refusal.window).inc()


def _seconds(duration: timedelta) -> float:
    """Return a duration; clocks of two machines may differ by a little."""
    return max(duration.total_seconds(), 0.0)
