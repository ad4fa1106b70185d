"""The costs of tool calls in the ledger: a row for each attempt, opened before it is made.

The row's key is that of the call and the attempt, so that the code that runs a tool and a tool that
meters itself use the same row: the later `open` is more exact about what is paid for, and the first
`settle` counts.
"""

from decimal import Decimal
from typing import Final

from schema.budgets import BudgetExceeded
from schema.ids import TurnId
from schema.result import Err, Ok, Result
from schema.tables import LedgerRow
from schema.usage import TokenUsage
from services.alerts import OnAlert
from services.database import Database
from services.metrics import Purpose, count_charge
from services.subscriptions.budget_alerts import BudgetAlerts
from services.subscriptions.budgets import Estimate, Reserved
from services.subscriptions.ledger import ChargeKey, ChargeKind, ChargeStatus, Ledger, Spent
from services.tools.definition import ToolExecution

_NO_TOKENS: Final = TokenUsage()


class ToolLedger:
    """Records what attempts at tool calls cost, as the call's own user.

    Outside a turn nothing is recorded. Every method is one transaction.
    Errors: DatabaseUnavailableError.
    """

    def __init__(self, database: Database, on_alert: OnAlert = lambda: None) -> None:
        self._database = database
        self._budgets = BudgetAlerts(database, on_alert)

    async def open(
        self,
        execution: ToolExecution,
        *,
        model: str,
        estimate_usd: Decimal,
        input_tokens: int = 0,
        at_most: Estimate | None = None,
        paid_once: bool = False,
    ) -> Result[Reserved, BudgetExceeded]:
        """Record an attempt before it is made; `model` is the tool's name if no model is called.

        It reserves what it may cost `at_most`, by default the estimate. Where that does not fit a
        budget it must not be made, and nothing is recorded. With `paid_once` the attempt replaces
        the call's earlier ones.
        Idempotency: opening an attempt again replaces its row, unless it is settled.
        """
        at_most = at_most or Estimate(estimate_usd)
        if execution.turn_id is None:
            return Ok(Reserved(at_most.usd, at_most.tokens, at_most.answer_tokens))
        user_id, turn_id = execution.actor.user_id, execution.turn_id
        async with self._database.statements(execution.actor) as connection:
            reserved = await Ledger(connection).open(
                _key(execution, turn_id),
                user_id,
                model=model,
                estimate_usd=estimate_usd,
                at_most=at_most,
                input_tokens=input_tokens,
                paid_once=paid_once,
            )
        if isinstance(reserved, Err):
            await self._budgets.refused(user_id, reserved.error, turn_id=turn_id)
        return reserved

    async def checkpoint(
        self, execution: ToolExecution, *, usage: TokenUsage, cost_usd: Decimal
    ) -> None:
        """Record what a running attempt has used so far, in case the process dies."""
        if execution.turn_id is None:
            return
        async with self._database.statements(execution.actor) as connection:
            key = _key(execution, execution.turn_id)
            await Ledger(connection).checkpoint(key, Spent.of(usage, cost_usd))

    async def settle(
        self,
        execution: ToolExecution,
        *,
        cost_usd: Decimal,
        status: ChargeStatus,
        estimated: bool,
        usage: TokenUsage = _NO_TOKENS,
        paid_once: bool = False,
    ) -> LedgerRow | None:
        """Record the final cost of an attempt; return its row, or None if none was opened.

        With `paid_once` an attempt marked lost stays lost.
        Idempotency: a settled attempt is returned unchanged.
        """
        if execution.turn_id is None:
            return None
        key, spent = _key(execution, execution.turn_id), Spent.of(usage, cost_usd)
        async with self._database.statements(execution.actor) as connection:
            ledger = Ledger(connection)
            found = settled = await ledger.settle(
                key, spent, status=status, estimated=estimated, paid_once=paid_once
            )
            if found is None:
                found = await ledger.read(key)
        if settled is not None:
            count_charge(settled["model"], Purpose.TOOL, usage=usage, cost_usd=cost_usd)
        return None if found is None else LedgerRow(**dict(found))


def over_budget(refusal: BudgetExceeded) -> str:
    """Return what the model gets instead of a call that does not fit a budget."""
    resets_at = refusal.resets_at.strftime("%d %B %Y, %H:%M UTC")
    return (
        "This call was not made: it costs more than the budget has left. The budget resets on "
        f"{resets_at}. Answer without this call, and say so."
    )


def _key(execution: ToolExecution, turn_id: TurnId) -> ChargeKey:
    return ChargeKey(
        turn_id, execution.step, ChargeKind.TOOL, execution.tool_call_id, execution.attempt
    )
