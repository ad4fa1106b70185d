"""The cost of tool calls in the ledger: once per attempt, whichever code records it."""

from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from schema.actors import acting_user
from schema.ids import TurnId, UserId, new_id
from schema.usage import TokenUsage
from services.events.snapshots import usage_event
from services.subscriptions.ledger import ChargeStatus
from services.tools.definition import ToolExecution
from services.tools.ledger import ToolLedger
from tests.fixtures.api_user import ApiUser
from tests.fixtures.database import Inspection
from tests.fixtures.stack import Stack
from tests.fixtures.tool_executions import an_execution

USAGE = TokenUsage(input_tokens=10, output_tokens=20)


@pytest.fixture
def ledger(stack: Stack) -> ToolLedger:
    """The ledger of the stack's database."""
    return ToolLedger(stack.foundation.database)


def attempt_of(person: ApiUser, *, turn: UUID | None = None, **values: object) -> ToolExecution:
    actor = acting_user(UserId(UUID(person.id)))
    turn_id = TurnId(turn or new_id())
    return an_execution(actor=actor, turn_id=turn_id, step=1, **{"tool_call_id": "c", **values})


async def rows_of(inspection: Inspection, execution: ToolExecution) -> list[dict[str, Any]]:
    assert execution.turn_id is not None
    return await inspection.charges(str(execution.turn_id))


async def settle(
    ledger: ToolLedger,
    execution: ToolExecution,
    cost: str,
    status: ChargeStatus = ChargeStatus.SETTLED,
) -> None:
    await ledger.settle(
        execution, cost_usd=Decimal(cost), status=status, estimated=False, usage=USAGE
    )


async def test_a_paid_call_is_in_the_ledger_before_and_after_it_runs(
    ledger: ToolLedger, user: ApiUser, inspection: Inspection
) -> None:
    execution = attempt_of(user, attempt=3)

    await ledger.open(execution, model="web_search", estimate_usd=Decimal("0.005"))
    [opened] = await rows_of(inspection, execution)
    row = await ledger.settle(
        execution, cost_usd=Decimal("0.004"), status=ChargeStatus.SETTLED, estimated=False
    )

    assert (opened["kind"], opened["model"], opened["status"]) == ("tool", "web_search", "open")
    assert (opened["attempt"], opened["tool_call_id"]) == (3, "c")
    assert (opened["estimated"], opened["cost_usd"]) == (True, Decimal("0.005"))
    [settled] = await rows_of(inspection, execution)
    assert (settled["status"], settled["estimated"]) == ("settled", False)
    assert settled["cost_usd"] == Decimal("0.004")
    assert settled["settled_at"] is not None
    assert row is not None
    assert usage_event(row).tool_call_id == "c"
    assert usage_event(row).cost_usd == Decimal("0.004")


async def test_a_tool_that_meters_itself_is_recorded_once_with_its_own_numbers(
    ledger: ToolLedger, user: ApiUser, inspection: Inspection
) -> None:
    execution = attempt_of(user)
    await ledger.open(execution, model="deep_reasoning", estimate_usd=Decimal("0.2"))
    await ledger.open(
        execution, model="claude-opus-5-5", estimate_usd=Decimal("0.1"), input_tokens=7
    )
    await settle(ledger, execution, "0.03", ChargeStatus.CANCELLED)

    row = await ledger.settle(
        execution, cost_usd=Decimal("0.2"), status=ChargeStatus.SETTLED, estimated=True
    )

    [stored] = await rows_of(inspection, execution)
    assert (stored["model"], stored["status"]) == ("claude-opus-5-5", "cancelled")
    assert (stored["cost_usd"], stored["output_tokens"]) == (Decimal("0.03"), 20)
    assert stored["estimated"] is False
    assert row is not None
    assert (row.cost_usd, row.status) == (Decimal("0.03"), "cancelled")


async def test_a_settled_attempt_is_neither_reopened_nor_updated(
    ledger: ToolLedger, user: ApiUser, inspection: Inspection
) -> None:
    execution = attempt_of(user)
    await ledger.open(execution, model="a", estimate_usd=Decimal(1))
    await settle(ledger, execution, "0.5")

    await ledger.open(execution, model="b", estimate_usd=Decimal(2))
    await ledger.checkpoint(execution, usage=TokenUsage(), cost_usd=Decimal(3))

    [row] = await rows_of(inspection, execution)
    assert (row["model"], row["status"], row["cost_usd"]) == ("a", "settled", Decimal("0.5"))


async def test_calls_of_one_step_have_their_own_rows(
    ledger: ToolLedger, user: ApiUser, inspection: Inspection
) -> None:
    first = attempt_of(user)
    second = attempt_of(user, turn=first.turn_id, tool_call_id="d")
    for execution, cost in ((first, "0.1"), (second, "0.2")):
        await ledger.open(execution, model="t", estimate_usd=Decimal(1))
        await settle(ledger, execution, cost)

    costs = {row["tool_call_id"]: row["cost_usd"] for row in await rows_of(inspection, first)}

    assert costs == {"c": Decimal("0.1"), "d": Decimal("0.2")}


async def test_an_attempt_that_died_counts_with_its_last_recorded_cost(
    ledger: ToolLedger, user: ApiUser, inspection: Inspection
) -> None:
    first = attempt_of(user, attempt=1)
    second = attempt_of(user, turn=first.turn_id, attempt=2)
    await ledger.open(first, model="t", estimate_usd=Decimal(1))
    await ledger.checkpoint(first, usage=USAGE, cost_usd=Decimal("0.3"))

    await ledger.open(second, model="t", estimate_usd=Decimal(1))

    dead, alive = await rows_of(inspection, first)
    assert (dead["status"], dead["cost_usd"]) == ("lost", Decimal("0.3"))
    assert (dead["input_tokens"], dead["output_tokens"]) == (10, 20)
    assert alive["status"] == "open"


async def test_an_attempt_marked_lost_too_early_still_records_its_cost(
    ledger: ToolLedger, user: ApiUser, inspection: Inspection
) -> None:
    first = attempt_of(user, attempt=1)
    await ledger.open(first, model="t", estimate_usd=Decimal(1))
    again = attempt_of(user, turn=first.turn_id, attempt=2)
    await ledger.open(again, model="t", estimate_usd=Decimal(1))

    await settle(ledger, first, "0.7", ChargeStatus.FAILED)

    row = (await rows_of(inspection, first))[0]
    assert (row["status"], row["cost_usd"]) == ("failed", Decimal("0.7"))


async def test_outside_a_turn_nothing_is_recorded(
    ledger: ToolLedger, user: ApiUser, inspection: Inspection
) -> None:
    trial = an_execution(actor=acting_user(UserId(UUID(user.id))))

    await ledger.open(trial, model="t", estimate_usd=Decimal(1))
    await ledger.checkpoint(trial, usage=USAGE, cost_usd=Decimal(1))
    row = await ledger.settle(
        trial, cost_usd=Decimal(1), status=ChargeStatus.SETTLED, estimated=False
    )

    assert row is None
    count = "SELECT count(*) FROM ledger WHERE user_id = $1"
    assert await inspection.value(count, UUID(user.id)) == 0


async def test_an_attempt_that_was_never_opened_has_no_row(
    ledger: ToolLedger, user: ApiUser
) -> None:
    row = await ledger.settle(
        attempt_of(user), cost_usd=Decimal(0), status=ChargeStatus.SETTLED, estimated=False
    )

    assert row is None


async def test_users_cannot_settle_calls_of_others(
    ledger: ToolLedger, user: ApiUser, other_user: ApiUser, inspection: Inspection
) -> None:
    execution = attempt_of(user)
    await ledger.open(execution, model="t", estimate_usd=Decimal(1))

    await settle(ledger, attempt_of(other_user, turn=execution.turn_id), "0")

    [row] = await rows_of(inspection, execution)
    assert (row["status"], row["cost_usd"]) == ("open", Decimal(1))


async def test_a_call_recognised_by_its_key_is_billed_once(
    ledger: ToolLedger, user: ApiUser, inspection: Inspection
) -> None:
    """The first attempt is marked lost but settles after all; the second is settled."""
    turn = new_id()
    first, second = (attempt_of(user, turn=turn, attempt=number) for number in (1, 2))
    price = Decimal("0.25")
    for attempt in (first, second):
        await ledger.open(attempt, model="t", estimate_usd=price, paid_once=True)
    late = await ledger.settle(
        first, cost_usd=price, status=ChargeStatus.SETTLED, estimated=False, paid_once=True
    )
    await ledger.settle(
        second, cost_usd=price, status=ChargeStatus.SETTLED, estimated=False, paid_once=True
    )

    rows = await rows_of(inspection, second)
    assert [(row["status"], row["cost_usd"]) for row in rows] == [("lost", 0), ("settled", price)]
    assert late is not None
    assert late.cost_usd == 0


@pytest.mark.parametrize("status", [ChargeStatus.SETTLED, ChargeStatus.CANCELLED])
async def test_the_cost_of_a_lost_answer_moves_to_the_next_attempt(
    ledger: ToolLedger, user: ApiUser, inspection: Inspection, status: ChargeStatus
) -> None:
    turn = new_id()
    first, second = (attempt_of(user, turn=turn, attempt=number) for number in (1, 2))
    await ledger.open(first, model="t", estimate_usd=Decimal(1), paid_once=True)
    await settle(ledger, first, "1", status)

    await ledger.open(second, model="t", estimate_usd=Decimal(1), paid_once=True)

    rows = await rows_of(inspection, second)
    assert [(row["status"], row["cost_usd"]) for row in rows] == [(status.value, 0), ("open", 1)]
