"""Rows of turns, their steps and their tool calls."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Numeric
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from schema.tables.columns import creation_moment, moment


class TurnRow(SQLModel, table=True):
    """A turn; `active` marks the one that holds its chat (a partial unique index).

    `request_id` is the request that created it, and `api_key_id` the key that authenticated that,
    if any. `steers` is the turn that its message was to join; with `joined_step` it did, before
    that step, and this turn ended without an answer of its own. `origin` says whether it was asked
    here, or is a copy of a turn of another chat, or imported; the latter two have no cost.
    """

    __tablename__ = "turns"

    id: UUID = Field(primary_key=True)
    chat_id: UUID = Field(foreign_key="chats.id")
    user_id: UUID = Field(foreign_key="users.id")
    user_message_id: UUID
    assistant_message_id: UUID | None = None
    regenerates: UUID | None = Field(default=None, foreign_key="turns.id")
    steers: UUID | None = Field(default=None, foreign_key="turns.id")
    joined_step: int | None = None
    status: str = "queued"
    active: bool = True
    model: str
    prompt: dict[str, Any] | None = Field(default=None, sa_type=JSONB)
    error_code: str | None = None
    error_message: str | None = None
    idempotency_key: str | None = None
    request_hash: bytes | None = None
    cancel_requested_at: datetime | None = moment()
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost_usd: Decimal = Field(default=Decimal(0), sa_type=Numeric(20, 10))
    created_at: datetime = creation_moment()
    started_at: datetime | None = moment()
    finished_at: datetime | None = moment()
    api_key_id: UUID | None = None
    request_id: str | None = None
    options: dict[str, Any] | None = Field(default=None, sa_type=JSONB)
    origin: str = "asked"


class TurnContextRow(SQLModel, table=True):
    """The parts of a turn's prompt: the text of each layer, and its sources."""

    __tablename__ = "turn_contexts"

    turn_id: UUID = Field(primary_key=True, foreign_key="turns.id")
    user_id: UUID = Field(foreign_key="users.id")
    layers: dict[str, Any] = Field(sa_type=JSONB)
    sources: list[dict[str, Any]] = Field(default_factory=list, sa_type=JSONB)
    created_at: datetime = creation_moment()


class ErasureRow(SQLModel, table=True):
    """A deleted turn whose stream and workflow are still to be removed."""

    __tablename__ = "erasures"

    turn_id: UUID = Field(primary_key=True)
    created_at: datetime = creation_moment()


class StepRow(SQLModel, table=True):
    """One model call of a turn: its latest attempt and its result.

    `run_id`, `activity_id` and `activity_attempt` name the execution that holds the attempt, so
    that one presumed dead can neither reclaim it nor overwrite a newer one. `prompt_tokens` is the
    uncorrected estimate of what was sent, once it was answered. `thinking` is what was shown of the
    model's thoughts; `problem` is why the answer does not fit the turn's schema.
    """

    __tablename__ = "steps"

    turn_id: UUID = Field(primary_key=True, foreign_key="turns.id")
    step: int = Field(primary_key=True)
    user_id: UUID = Field(foreign_key="users.id")
    attempt: int
    run_id: str
    activity_id: str
    activity_attempt: int
    model: str
    status: str
    text: str = ""
    blocks: list[dict[str, Any]] = Field(default_factory=list, sa_type=JSONB)
    stop_reason: str | None = None
    prompt_tokens: int | None = None
    thinking: str = ""
    problem: str | None = None
    created_at: datetime = creation_moment()
    updated_at: datetime = creation_moment()


class ToolCallRow(SQLModel, table=True):
    """One tool call that the model requested, in the order of `position`.

    `approval` is the policy at that time; the user may decide until `expires_at`, and
    `edited_input` is the input as they changed it. `sent_at` marks a call that must run at most
    once and was sent; `callback_id` one whose answer comes later, by `callback_until`.
    """

    __tablename__ = "tool_calls"

    turn_id: UUID = Field(primary_key=True, foreign_key="turns.id")
    step: int = Field(primary_key=True)
    tool_call_id: str = Field(primary_key=True)
    user_id: UUID = Field(foreign_key="users.id")
    position: int
    name: str
    input: dict[str, Any] = Field(sa_type=JSONB)
    status: str
    output: str | None = None
    attempts: int = 0
    created_at: datetime = creation_moment()
    started_at: datetime | None = moment()
    finished_at: datetime | None = moment()
    approval: str = "auto"
    expires_at: datetime | None = moment()
    decision: str | None = None
    decision_reason: str | None = None
    edited_input: dict[str, Any] | None = Field(default=None, sa_type=JSONB)
    decided_at: datetime | None = moment()
    sent_at: datetime | None = moment()
    callback_id: UUID | None = None
    callback_until: datetime | None = moment()
    blocks: list[dict[str, Any]] | None = Field(default=None, sa_type=JSONB)
    cost_usd: Decimal = Field(default=Decimal(0), sa_type=Numeric(20, 10))


class ChatToolApprovalRow(SQLModel, table=True):
    """A tool that the user approved for a whole chat."""

    __tablename__ = "chat_tool_approvals"

    chat_id: UUID = Field(primary_key=True)
    tool: str = Field(primary_key=True)
    user_id: UUID
    created_at: datetime = creation_moment()
