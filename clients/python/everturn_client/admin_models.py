"""Resources that only administrators see."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from pydantic import JsonValue

from everturn_client.chat_models import Feedback, Message, Turn
from everturn_client.models import (
    BudgetUse,
    Document,
    Entitlements,
    Resource,
    TokenUsage,
    User,
)


class ManagedUser(User):
    """An account, as administrators see it. `status` is `active` or `disabled`."""

    status: str
    plan_id: str


class Plan(Resource):
    """A plan."""

    version: int
    id: str
    name: str
    description: str
    entitlements: Entitlements
    is_default: bool
    active: bool
    created_at: datetime
    updated_at: datetime


class PlanAssignment(Resource):
    """A user's plan."""

    version: int
    user_id: str
    plan_id: str
    started_at: datetime
    updated_at: datetime


class UserBudget(BudgetUse):
    """The limits that apply to a user. `source` is `plan`, or `user` if they are their own."""

    version: int
    user_id: str
    source: str
    updated_at: datetime | None = None


class InstallationBudget(BudgetUse):
    """The limits of all users together; `version` is 0 while none are set."""

    version: int
    updated_at: datetime | None = None


class AdministeredTool(Resource):
    """A tool and its settings."""

    version: int
    name: str
    kind: str
    server: str | None = None
    name_on_server: str | None = None
    description: str
    input_schema: dict[str, Any]
    default_approval: str
    retry_class: str
    timeout_s: float
    cost_usd: Decimal
    enabled: bool
    problem: str | None = None
    approval: str | None = None
    roles: list[str] | None = None
    changed_at: datetime | None = None


class ToolTest(Resource):
    """What a tool returned for an input."""

    output: str
    is_error: bool
    duration_ms: int


class McpServer(Resource):
    """An MCP server. `status` is `unknown`, `healthy` or `failing`."""

    version: int
    name: str
    transport: str
    command: str | None = None
    args: tuple[str, ...] = ()
    url: str | None = None
    secret_names: tuple[str, ...] = ()
    enabled: bool
    status: str
    problem: str | None = None
    tool_count: int
    checked_at: datetime | None = None
    created_at: datetime
    updated_at: datetime


class WorkflowTool(Resource):
    """A webhook that turns may use as a tool."""

    version: int
    name: str
    description: str
    url: str
    input_schema: dict[str, Any]
    timeout_s: float
    retry_class: str
    approval: str
    enabled: bool
    problem: str | None = None
    created_at: datetime
    updated_at: datetime


class OwnedTurn(Turn):
    """A turn and its owner."""

    user_id: str


class InspectedStep(Resource):
    """An attempt at a step."""

    step: int
    attempt: int
    model: str
    status: str
    text: str
    stop_reason: str | None = None
    created_at: datetime
    updated_at: datetime


class InspectedToolCall(Resource):
    """A tool call of a turn."""

    step: int
    tool_call_id: str
    name: str
    input: dict[str, JsonValue]
    edited_input: dict[str, JsonValue] | None = None
    status: str
    output: str | None = None
    attempts: int
    decision: str | None = None
    decision_reason: str | None = None
    expires_at: datetime | None = None
    cost_usd: Decimal
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None


class InspectedCharge(Resource):
    """The cost of an attempt."""

    step: int
    attempt: int
    kind: str
    tool_call_id: str | None = None
    model: str
    status: str
    estimated: bool
    usage: TokenUsage
    cost_usd: Decimal
    created_at: datetime
    settled_at: datetime | None = None


class InspectedTurn(Resource):
    """All details of a turn; reading it is audited."""

    turn: OwnedTurn
    workflow_id: str
    request_id: str | None = None
    prompt: dict[str, JsonValue] | None = None
    context: dict[str, JsonValue] | None = None
    messages: list[Message]
    steps: list[InspectedStep]
    tool_calls: list[InspectedToolCall]
    charges: list[InspectedCharge]
    superseded_by: str | None = None


class OwnedDocument(Document):
    """A document and its owner."""

    user_id: str


class Alert(Resource):
    """An alert for administrators."""

    id: str
    kind: str
    severity: str
    user_id: str | None = None
    resource_type: str | None = None
    resource_id: str | None = None
    details: dict[str, JsonValue]
    created_at: datetime
    delivery_status: str
    delivery_attempts: int
    delivery_problem: str | None = None
    delivered_at: datetime | None = None


class AuditEntry(Resource):
    """Who did what to which resource."""

    id: str
    actor_type: str
    actor_id: str
    action: str
    resource_type: str
    resource_id: str | None = None
    subject_id: str | None = None
    request_id: str | None = None
    address: str | None = None
    details: dict[str, JsonValue]
    created_at: datetime


class GivenFeedback(Feedback):
    """Feedback on an answer, with the model and the version of the base prompt that gave it."""

    id: str
    user_id: str
    chat_id: str
    turn_id: str
    message_id: str
    model: str
    prompt_version: str | None = None


class Prompt(Resource):
    """A prompt of the system layer."""

    version: int
    id: str
    name: str
    description: str
    latest_version: int
    active_version: int | None = None
    created_at: datetime
    updated_at: datetime


class PromptDetail(Prompt):
    """A prompt with its latest activations."""

    activations: list[dict[str, JsonValue]]


class PromptVersion(Resource):
    """A version of a prompt."""

    prompt_id: str
    number: int
    content: str
    note: str
    active: bool
    created_by: str | None = None
    created_at: datetime
