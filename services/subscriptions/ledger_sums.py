"""Owns adding the ledger up: the columns of a sum, and which rows are in it."""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, and_
from sqlmodel import col, func

from schema.subscriptions import UsageSums
from schema.tables import LedgerRow
from schema.usage import TokenUsage

# Every turn asks a model first, and the first attempt at that has one row: to count these is to
# count turns, without the sort that telling them apart by their ids would take.
_BEGINS_A_TURN: Final = and_(
    col(LedgerRow.kind) == "model", col(LedgerRow.step) == 1, col(LedgerRow.attempt) == 1
)


def _sum(name: str) -> ColumnElement[Any]:
    return func.coalesce(func.sum(col(getattr(LedgerRow, name))), 0).label(name)


SUMS: Final[tuple[ColumnElement[Any], ...]] = (
    func.count().label("calls"),
    func.count().filter(_BEGINS_A_TURN).label("turns"),
    *map(_sum, (*TokenUsage.model_fields, "cost_usd")),
)
"""The columns of a sum, as `sums_from` reads them."""


def between(since: datetime, until: datetime | None) -> list[ColumnElement[bool]]:
    """Return the conditions of a range of time."""
    begun = col(LedgerRow.created_at)
    return [begun >= since, *([] if until is None else [begun < until])]


def sums_from(row: Any) -> UsageSums:  # noqa: ANN401 -- a row of a query is typed by its columns
    """Return a sum, whose tokens Postgres gives as decimals."""
    tokens = {name: int(getattr(row, name)) for name in TokenUsage.model_fields}
    return UsageSums(
        calls=row.calls, turns=row.turns, usage=TokenUsage(**tokens), cost_usd=row.cost_usd
    )
