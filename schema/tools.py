"""Owns tools as users see them and as administrators decide about them.

Where tools come from has modules of its own: `mcp_servers.py` and `workflow_tools.py`.
"""

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from schema.users import UserRole
from schema.wire import (
    ChangeModel,
    Payload,
    RequestModel,
    StorableObject,
    Timestamp,
    Usd,
    VersionedModel,
    WireModel,
    unset,
)

SERVER_SEPARATOR = "__"
"""Stands between the name of an MCP server and that of its tool; neither kind else has it."""

ToolName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$", examples=["web_search"])]
"""The form of tools' names. Whether there is such a tool is not asked: it may come later."""


class ToolKind(StrEnum):
    """Where a tool runs."""

    LOCAL = "local"
    MCP = "mcp"
    WORKFLOW = "workflow"


class RetryClass(StrEnum):
    """Whether a call whose outcome is unknown may be made again."""

    IDEMPOTENT = "idempotent"
    KEYED = "keyed"
    NEVER = "never"


class ApprovalPolicy(StrEnum):
    """Whether a call waits for a person."""

    AUTO = "auto"
    ASK = "ask"
    DENY = "deny"


class Tool(WireModel):
    """A tool that the caller may use. Units: `timeout_s` is in seconds."""

    name: str
    description: str
    input_schema: dict[str, JsonValue]
    kind: ToolKind
    approval: ApprovalPolicy
    retry_class: RetryClass
    timeout_s: float
    enabled_by_user: bool = Field(
        description="Whether it is offered to the model; `disabledTools` of the preferences says."
    )


class AdministeredTool(VersionedModel):
    """A tool of whatever kind, as it is defined and as it was decided about.

    `enabled`, `approval` and `roles` are the administrators' decision. Units: `timeout_s` is in
    seconds.
    """

    name: str
    kind: ToolKind
    server: str | None = Field(description="The MCP server that lists it.")
    description: str
    input_schema: dict[str, JsonValue]
    default_approval: ApprovalPolicy
    retry_class: RetryClass
    timeout_s: float
    cost_usd: Usd = Field(description="What one call costs, as far as that is known before it.")
    enabled: bool
    approval: ApprovalPolicy | None = Field(description="Null leaves it as it is defined.")
    roles: tuple[UserRole, ...] | None = Field(description="Who may use it; null means everybody.")
    changed_at: Timestamp | None = Field(description="When it was last decided about.")


class ChangeToolRequest(ChangeModel):
    """What an administrator decides about a tool; null takes a decision back."""

    enabled: bool = unset()
    approval: Annotated[ApprovalPolicy, Field(strict=False, examples=["ask"])] | None = None
    roles: (
        Annotated[
            list[Annotated[UserRole, Field(strict=False)]],
            Field(min_length=1, max_length=len(UserRole), examples=[["admin"]]),
        ]
        | None
    ) = None
    retry_class: (
        Annotated[
            RetryClass,
            Field(
                strict=False,
                examples=["never"],
                description="Whether a call whose outcome is unknown may be made again.",
            ),
        ]
        | None
    ) = None
    timeout_s: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] | None = None
    cost_usd: (
        Annotated[
            Usd,
            Field(
                strict=False,
                ge=0,
                le=1_000_000,
                max_digits=20,
                decimal_places=10,
                examples=["0.005"],
                description="What one call costs; it is recorded in the ledger.",
            ),
        ]
        | None
    ) = None


class TestToolRequest(RequestModel):
    """An input to try a tool with."""

    __test__ = False  # not pytest's, whatever its name begins with

    input: Annotated[StorableObject, Field(examples=[{"expression": "12 * 34"}])]


class ToolTest(WireModel):
    """What a tool made of an input. Units: `duration_ms` is in milliseconds."""

    output: str
    is_error: bool
    duration_ms: int


class ToolTrialReference(Payload):
    """Which trial a worker is to run, and how long its tool may take. Units: seconds."""

    trial_id: UUID
    tool: str
    within_s: float


class ToolDefinition(BaseModel):
    """What the model, the prompt and the workflow need to know about a tool.

    `instant` tools are pure and take microseconds, so they run as local activities;
    `instructions` are the tool's sentences in the prompt; `server` is the MCP server that has it,
    and `output_schema` what that one promises of results.
    Units: `cost_usd` is what one call costs, as far as that is known before it is made.
    """

    model_config = ConfigDict(frozen=True)

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str
    input_schema: dict[str, JsonValue]
    output_schema: dict[str, JsonValue] | None = None
    kind: ToolKind = ToolKind.LOCAL
    server: str | None = None
    timeout: timedelta
    retry_class: RetryClass
    approval: ApprovalPolicy = ApprovalPolicy.AUTO
    cost_usd: Decimal = Decimal(0)
    instant: bool = False
    instructions: str = ""


def approval_policies(stored: Mapping[str, str]) -> dict[str, ApprovalPolicy]:
    """Return approval policies by tool, as they were stored."""
    return {name: ApprovalPolicy(policy) for name, policy in stored.items()}
