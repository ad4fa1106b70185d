"""One attempt at a tool call: its cost, and whether a failure is worth another attempt.

A tool of ours is tried a few times. A server of others may be restarting: where nothing was sent,
or the call may be repeated, it is tried until the tool's timeout has passed since it was first.

ToolPostponedError    the tool did not answer; the same call should be repeated
"""

from datetime import timedelta
from decimal import Decimal
from random import uniform
from typing import Any, Final

import structlog

from schema.budgets import BudgetExceeded
from schema.result import Err, Result
from schema.tools import RetryClass, ToolDefinition, ToolKind
from services.database import DatabaseUnavailableError
from services.events.snapshots import usage_event
from services.events.writer import EventWriter
from services.shielding import shielded, until_stored
from services.subscriptions.budgets import Reserved
from services.subscriptions.ledger import ChargeStatus
from services.tools.definition import ToolExecution, ToolOutcome, ToolUnavailableError
from services.tools.executor import AnswersLater, ToolExecutor
from services.tools.ledger import ToolLedger, over_budget

_log = structlog.get_logger(__name__)

OUTCOME_UNKNOWN: Final = (
    "The outcome of this call is unknown: contact with the tool was lost while it ran. The call "
    "was not retried. Check whether it took effect, or ask, before you repeat it."
)
_PERHAPS: Final = "The call may have taken effect: check before you repeat it."
_FREE: Final = Decimal(0)
_FIRST_PAUSE_S: Final = 0.5
_GROWTH: Final = 1.5
_LONGEST_PAUSE_S: Final = 10.0
_LONGEST_EXPONENT: Final = 20
# Tools that answer later may have a day: nobody restarts for that long.
_LONGEST_WINDOW: Final = timedelta(minutes=15)


class ToolPostponedError(Exception):
    """The tool did not answer; the same call may be repeated, after `retry_after` if given."""

    def __init__(self, retry_after: timedelta | None) -> None:
        super().__init__("The tool did not answer.")
        self.retry_after = retry_after


class ToolAttempts:
    """Attempts tool calls, each `attempts` times; servers of others until their timeout, too."""

    def __init__(
        self, executor: ToolExecutor, ledger: ToolLedger, events: EventWriter, *, attempts: int
    ) -> None:
        self._executor = executor
        self._ledger = ledger
        self._events = events
        self._attempts = attempts

    async def run(
        self,
        tool: ToolDefinition,
        tool_input: dict[str, Any],
        execution: ToolExecution,
    ) -> ToolOutcome | AnswersLater:
        """Run a tool that is ready, with its cost recorded: expected before, known after.

        A call that does not fit the user's budgets is not sent.
        Errors: ToolPostponedError; what a tool raises is a bug, and propagates until it has been
        tried often enough.
        """
        if not tool.cost_usd:
            return await self._attempt(tool, tool_input, execution)
        if not tool.meters_itself:
            opened = await self._note(tool, execution)
            if isinstance(opened, Err):
                return failed(over_budget(opened.error), cost_usd=_FREE)
        outcome: ToolOutcome | AnswersLater | None = None
        status = ChargeStatus.CANCELLED
        try:
            outcome = await self._attempt(tool, tool_input, execution)
            status = _charge_status(outcome)
        except Exception:
            status = ChargeStatus.FAILED
            raise
        finally:
            cost_usd = await shielded(self._settle(tool, execution, outcome, status))
        if isinstance(outcome, ToolOutcome):
            return outcome.model_copy(update={"cost_usd": cost_usd})
        return outcome

    async def _note(
        self, tool: ToolDefinition, execution: ToolExecution
    ) -> Result[Reserved, BudgetExceeded]:
        """Reserve the attempt's expected cost; before the call is sent it can be postponed."""
        try:
            return await self._ledger.open(
                execution,
                model=tool.name,
                estimate_usd=tool.cost_usd,
                paid_once=_is_paid_once(tool),
            )
        except DatabaseUnavailableError:
            raise ToolPostponedError(None) from None

    async def _attempt(
        self,
        tool: ToolDefinition,
        tool_input: dict[str, Any],
        execution: ToolExecution,
    ) -> ToolOutcome | AnswersLater:
        try:
            return await self._executor.run(tool, tool_input, execution)
        except TimeoutError:
            _log.warning("tool_timed_out", turn_id=str(execution.turn_id), tool=tool.name)
            words = f"The tool did not answer within {tool.timeout.total_seconds():g} s."
            return failed(f"{words} {_unknown(tool)}")
        except ToolUnavailableError as error:
            if not (error.reached and is_once(tool)) and self._has_attempts_left(
                tool, execution, error
            ):
                raise ToolPostponedError(_pause(tool, execution, error)) from None
            words = f"{error.sentence} {_unknown(tool)}" if error.reached else error.sentence
            return failed(words, cost_usd=_FREE)
        except Exception as error:
            if tool.meters_itself and isinstance(error, DatabaseUnavailableError):
                # It could not reserve the cost, so it has not made the call.
                raise ToolPostponedError(None) from None
            if execution.attempt < self._attempts and not is_once(tool):
                raise
            # A tool that keeps failing must not keep the turn from ending.
            _log.exception("tool_failed", turn_id=str(execution.turn_id), tool=tool.name)
            return failed(OUTCOME_UNKNOWN if is_once(tool) else "The tool failed.")

    def _has_attempts_left(
        self, tool: ToolDefinition, execution: ToolExecution, error: ToolUnavailableError
    ) -> bool:
        if execution.attempt < self._attempts:
            return True
        left = _time_left(tool, execution)
        return left > timedelta() and (error.retry_after is None or error.retry_after <= left)

    async def _settle(
        self,
        tool: ToolDefinition,
        execution: ToolExecution,
        outcome: ToolOutcome | AnswersLater | None,
        status: ChargeStatus,
    ) -> Decimal:
        """Store what the attempt cost, publish it, and return it.

        A tool that did not answer costs nothing; a cancelled call may have cost something.
        """
        known = outcome.cost_usd if isinstance(outcome, ToolOutcome) else None
        if outcome is None and status is ChargeStatus.FAILED:
            known = _FREE
        try:
            charge = await until_stored(
                lambda: self._ledger.settle(
                    execution,
                    cost_usd=tool.cost_usd if known is None else known,
                    status=status,
                    estimated=status is ChargeStatus.CANCELLED,
                    paid_once=_is_paid_once(tool),
                )
            )
        except Exception:  # noqa: BLE001 -- the tool has run: its outcome counts, the estimate stays
            _log.exception("tool_cost_not_stored", turn_id=str(execution.turn_id), tool=tool.name)
            return tool.cost_usd
        if charge is None or execution.turn_id is None:
            return _FREE
        await self._events.append(execution.turn_id, [usage_event(charge)])
        return charge.cost_usd


def _time_left(tool: ToolDefinition, execution: ToolExecution) -> timedelta:
    """Return for how long a server of others may still be waited for."""
    if tool.kind is ToolKind.LOCAL:
        return timedelta()
    return min(tool.timeout, _LONGEST_WINDOW) - execution.elapsed


def _pause(
    tool: ToolDefinition, execution: ToolExecution, error: ToolUnavailableError
) -> timedelta | None:
    """Return the pause before the next attempt, if it is not the usual one.

    The last attempt is made when the time is over, and not before.
    """
    left = _time_left(tool, execution)
    if left <= timedelta():
        return error.retry_after
    grown_s = _FIRST_PAUSE_S * _GROWTH ** min(execution.attempt - 1, _LONGEST_EXPONENT)
    # Not all calls that a server has failed come back at the same moment.
    pause = timedelta(seconds=min(grown_s, _LONGEST_PAUSE_S) * uniform(0.8, 1.2))  # noqa: S311 -- no secret
    return max(min(pause, left), error.retry_after or timedelta())


def is_once(tool: ToolDefinition) -> bool:
    """Whether the tool may be called at most once, even if it is unknown whether it was."""
    return tool.retry_class is RetryClass.NEVER


def _is_paid_once(tool: ToolDefinition) -> bool:
    """Whether the tool recognises a repeated call by its key, so that it is paid once."""
    return tool.retry_class is RetryClass.KEYED


def failed(words: str, *, cost_usd: Decimal | None = None) -> ToolOutcome:
    """Return the outcome of a failed call, as the model gets it."""
    return ToolOutcome(output=words, is_error=True, cost_usd=cost_usd)


def _unknown(tool: ToolDefinition) -> str:
    """Return the advice about a call that may have arrived; idempotent ones have no effect."""
    match tool.retry_class:
        case RetryClass.NEVER:
            return OUTCOME_UNKNOWN
        case RetryClass.KEYED:
            return _PERHAPS
        case RetryClass.IDEMPOTENT:
            return "You may try again."


def _charge_status(outcome: ToolOutcome | AnswersLater) -> ChargeStatus:
    has_failed = isinstance(outcome, ToolOutcome) and outcome.is_error
    return ChargeStatus.FAILED if has_failed else ChargeStatus.SETTLED
