"""Rows of the ledger, which are provider calls and their cost, and of the sums of its days."""

from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import Column, Computed, Numeric
from sqlmodel import Field, SQLModel

from schema.tables.columns import creation_moment, moment


class LedgerRow(SQLModel, table=True):
    """One attempt at a paid call. It outlives the turn: money spent stays spent.

    `status` is `open` while the call runs, then `settled`, `cancelled` or `failed`; `lost` marks
    an attempt whose process died. `estimated` marks tokens that the provider did not report.

    An open row is also the reservation of its call: `charged_usd` and `charged_tokens`, which the
    database computes, are what it reserves, or its cost if that is more; then its cost alone.
    `is_limited` is false where no budget applied when it was opened.
    """

    __tablename__ = "ledger"

    id: UUID = Field(primary_key=True)
    user_id: UUID = Field(foreign_key="users.id")
    turn_id: UUID
    step: int
    attempt: int
    kind: str
    model: str
    status: str = "open"
    estimated: bool = True
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost_usd: Decimal = Field(default=Decimal(0), sa_type=Numeric(20, 10))
    created_at: datetime = creation_moment()
    settled_at: datetime | None = moment()
    tool_call_id: str = ""
    api_key_id: UUID | None = None
    reserved_usd: Decimal = Field(default=Decimal(0), sa_type=Numeric(20, 10))
    reserved_tokens: int = 0
    is_limited: bool = True
    charged_usd: Decimal | None = Field(
        default=None, sa_column=Column(Numeric(20, 10), Computed(""), nullable=False)
    )
    charged_tokens: Decimal | None = Field(
        default=None, sa_column=Column(Numeric(24), Computed(""), nullable=False)
    )


class UsageDayRow(SQLModel, table=True):
    """What the ledger's settled rows of one UTC day add up to; only triggers write it.

    `scope` is `user`, `api_key` or `installation` (only while it has a budget), `subject_id` the
    id of the user or key, or the nil UUID. What running calls reserve is read from the ledger.
    """

    __tablename__ = "usage_days"

    scope: str = Field(primary_key=True)
    subject_id: UUID = Field(primary_key=True)
    day: date = Field(primary_key=True)
    user_id: UUID | None = Field(default=None, foreign_key="users.id")
    settled_usd: Decimal = Field(default=Decimal(0), sa_type=Numeric(30, 10))
    settled_tokens: Decimal = Field(default=Decimal(0), sa_type=Numeric(30))
