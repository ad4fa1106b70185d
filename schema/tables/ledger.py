"""Rows of the ledger: provider calls and their cost."""

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import Numeric
from sqlmodel import Field, SQLModel

from schema.tables.columns import creation_moment, moment


class LedgerRow(SQLModel, table=True):
    """One attempt at a paid call. It outlives the turn: money spent stays spent.

    `status` is `open` while the call runs, then `settled`, `cancelled` or `failed`; `lost` marks
    an attempt whose process died. `estimated` marks tokens that the provider did not report.
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
