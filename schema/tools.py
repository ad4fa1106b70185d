"""Tools: definitions, what users and administrators see of them, settings and trials.

The sources of tools have modules of their own: `mcp_servers.py` and `workflow_tools.py`.
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
"""Separates the name of an MCP server from that of its tool; no other name contains it."""

LONGEST_TOOL_NAME = 64
"""The Messages API takes 128 characters, some gateways 64."""

_NAME_PATTERN = rf"^[a-zA-Z0-9_-]{{1,{LONGEST_TOOL_NAME}}}$"

ToolName = Annotated[str, Field(pattern=_NAME_PATTERN, examples=["web_search"])]
"""The form of tools' names. The tool need not exist: it may be added later."""


class ToolKind(StrEnum):
    """Where a tool runs."""

    LOCAL = "local"
    MCP = "mcp"
    WORKFLOW = "workflow"


class RetryClass(StrEnum):
    """Whether a call whose outcome is unknown may be retried."""

    IDEMPOTENT = "idempotent"
    KEYED = "keyed"
    NEVER = "never"


class ApprovalPolicy(StrEnum):
    """Whether a call needs a person's approval."""

    AUTO = "auto"
    ASK = "ask"
    DENY = "deny"


class Tool(WireModel):
    """A tool that the caller may use. Units: `timeoutS` is in seconds."""

    name: str
    description: str
    input_schema: dict[str, JsonValue]
    kind: ToolKind
    approval: ApprovalPolicy
    retry_class: RetryClass
    timeout_s: float
    enabled_by_user: bool = Field(
        description="Whether it is offered to the model; set by `disabledTools` in the preferences."
    )


class AdministeredTool(VersionedModel):
    """A tool of any kind, with its settings.

    `enabled`, `approval` and `roles` are set by administrators. Units: `timeoutS` is in seconds.
    """

    name: str
    kind: ToolKind
    server: str | None = Field(description="The MCP server that provides it.")
    name_on_server: str | None = Field(
        description="The tool's name on its MCP server, if it differs from that in `name`."
    )
    description: str
    input_schema: dict[str, JsonValue]
    default_approval: ApprovalPolicy
    retry_class: RetryClass
    timeout_s: float
    cost_usd: Usd = Field(description="The cost of one call, as far as it is known beforehand.")
    enabled: bool
    problem: str | None = Field(
        description="Why it is not offered to models. Setting `enabled` offers a tool again that "
        "the model's provider refused."
    )
    approval: ApprovalPolicy | None = Field(description="Null uses `defaultApproval`.")
    roles: tuple[UserRole, ...] | None = Field(description="Roles that may use it; null means all.")
    changed_at: Timestamp | None = Field(description="When its settings last changed.")


class ChangeToolRequest(ChangeModel):
    """A change of a tool's settings; null restores the default."""

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
                description="Whether a call whose outcome is unknown may be retried.",
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
                description="The cost of one call, recorded in the ledger.",
            ),
        ]
        | None
    ) = None


class ToolTrialRequest(RequestModel):
    """The input for a trial of a tool."""

    input: Annotated[StorableObject, Field(examples=[{"expression": "12 * 34"}])]


class ToolTrialResult(WireModel):
    """The outcome of a trial. Units: `duration_ms` is in milliseconds."""

    output: str
    is_error: bool
    duration_ms: int


class ToolTrialReference(Payload):
    """The trial that a worker is to run, and its time limit. Units: `within_s` is in seconds."""

    trial_id: UUID
    tool: str
    within_s: float


class ToolDefinition(BaseModel):
    """What the model, the prompt and the workflow need to know about a tool.

    `instant` tools are pure and take microseconds, so they run as local activities;
    `instructions` are the tool's sentences in the prompt; `server` is the MCP server that provides
    it, `name_on_server` the name that it has there if it differs, and `output_schema` the schema
    that the server promises for results. One with a `problem` is not offered to models.
    One that `meters_itself` reserves and records what each of its calls costs.
    Units: `cost_usd` is the cost of one call, as far as it is known beforehand.
    """

    model_config = ConfigDict(frozen=True)

    name: str = Field(pattern=_NAME_PATTERN)
    description: str
    input_schema: dict[str, JsonValue]
    output_schema: dict[str, JsonValue] | None = None
    kind: ToolKind = ToolKind.LOCAL
    server: str | None = None
    name_on_server: str | None = None
    timeout: timedelta
    retry_class: RetryClass
    approval: ApprovalPolicy = ApprovalPolicy.AUTO
    cost_usd: Decimal = Decimal(0)
    meters_itself: bool = False
    instant: bool = False
    instructions: str = ""
    problem: str | None = None


def approval_policies(stored: Mapping[str, str]) -> dict[str, ApprovalPolicy]:
    """Return stored approval policies, by tool."""
    return {name: ApprovalPolicy(policy) for name, policy in stored.items()}


def qualified_name(server: str, tool: str) -> str:
    """Return the unique name of a server's tool. A server's name has no underscore."""
    return f"{server}{SERVER_SEPARATOR}{tool}"
