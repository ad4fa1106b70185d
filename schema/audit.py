"""The audit log as administrators read it, and the names of its actions and resources."""

from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import BeforeValidator, Field

from schema.actors import ActorType
from schema.time_ranges import TimeRange
from schema.wire import StorableText, Timestamp, WireModel


class AuditAction(StrEnum):
    """What was done, e.g. `chat.deleted`; filters take these names."""

    USER_SIGNED_UP = "user.signed_up"
    USER_SIGNED_IN = "user.signed_in"
    USER_SIGN_IN_REFUSED = "user.sign_in_refused"
    USER_TOKEN_REUSED = "user.token_reused"  # noqa: S105 -- the name of an action
    USER_PASSWORD_RESET_REQUESTED = "user.password_reset_requested"  # noqa: S105 -- as above
    USER_PASSWORD_RESET = "user.password_reset"  # noqa: S105 -- as above
    USER_VERIFICATION_REQUESTED = "user.verification_requested"
    USER_EMAIL_VERIFIED = "user.email_verified"
    USER_EMAIL_CHANGED = "user.email_changed"
    USER_SESSIONS_ENDED = "user.sessions_ended"
    USER_EXPORTED = "user.exported"
    USER_DELETED = "user.deleted"
    USER_CHANGED = "user.changed"
    USER_PLAN_ASSIGNED = "user.plan_assigned"
    USER_BUDGET_SET = "user.budget_set"
    USER_BUDGET_REMOVED = "user.budget_removed"
    BUDGET_REACHED = "budget.reached"
    API_KEY_CREATED = "api_key.created"
    API_KEY_REVOKED = "api_key.revoked"
    CHAT_DELETED = "chat.deleted"
    SHARE_CREATED = "share.created"
    SHARE_REVOKED = "share.revoked"
    FEEDBACK_READ = "feedback.read"
    MESSAGE_DELETED = "message.deleted"
    FILE_DELETED = "file.deleted"
    MEMORY_DELETED = "memory.deleted"
    DOCUMENT_DELETED = "document.deleted"
    DOCUMENT_PUBLISHED = "document.published"
    DOCUMENT_UNPUBLISHED = "document.unpublished"
    PROMPT_CREATED = "prompt.created"
    PROMPT_VERSION_CREATED = "prompt.version_created"
    PROMPT_ACTIVATED = "prompt.activated"
    PLAN_CREATED = "plan.created"
    PLAN_CHANGED = "plan.changed"
    INSTALLATION_BUDGET_SET = "installation.budget_set"
    INSTALLATION_BUDGET_REMOVED = "installation.budget_removed"
    TOOL_CHANGED = "tool.changed"
    TOOL_TESTED = "tool.tested"
    MCP_SERVER_CREATED = "mcp_server.created"
    MCP_SERVER_CHANGED = "mcp_server.changed"
    MCP_SERVER_DELETED = "mcp_server.deleted"
    MCP_SERVER_REFRESHED = "mcp_server.refreshed"
    WORKFLOW_TOOL_CREATED = "workflow_tool.created"
    WORKFLOW_TOOL_CHANGED = "workflow_tool.changed"
    WORKFLOW_TOOL_DELETED = "workflow_tool.deleted"
    TOOL_CALL_DECIDED = "tool_call.decided"
    TURN_READ = "turn.read"
    TURN_CANCELLED = "turn.cancelled"
    TURN_RERUN = "turn.rerun"


class ResourceType(StrEnum):
    """The kinds of resources that actions concern."""

    USER = "user"
    API_KEY = "api_key"
    CHAT = "chat"
    SHARE = "share"
    MESSAGE = "message"
    FILE = "file"
    MEMORY = "memory"
    DOCUMENT = "document"
    PROMPT = "prompt"
    PLAN = "plan"
    TOOL = "tool"
    MCP_SERVER = "mcp_server"
    WORKFLOW_TOOL = "workflow_tool"
    TURN = "turn"
    INSTALLATION = "installation"


def _text_of_network(network: object) -> str | None:
    """Return a network as text: the driver reads it as an object."""
    return None if network is None else str(network)


class AuditEntry(WireModel):
    """Who did what to which resource, and from where. `subject_id` is the resource's owner."""

    id: UUID
    actor_type: ActorType
    actor_id: UUID
    action: str
    resource_type: str
    resource_id: str | None
    subject_id: UUID | None
    request_id: str | None
    address: Annotated[
        str | None,
        BeforeValidator(_text_of_network),
        Field(description="The client's network, e.g. 203.0.113.0/24."),
    ]
    details: dict[str, Any]
    created_at: Timestamp


Word = Annotated[StorableText, Field(min_length=1, max_length=200)]


class AuditFilter(TimeRange):
    """Filters for a list of entries; an entry must match all of them."""

    actor_id: UUID | None = None
    subject_id: UUID | None = None
    action: Annotated[
        list[AuditAction],
        Field(
            default_factory=list,
            max_length=len(AuditAction),
            description="Repeat to match any of several actions.",
        ),
    ]
    resource_type: ResourceType | None = None
    resource_id: Word | None = None
    request_id: Word | None = None
