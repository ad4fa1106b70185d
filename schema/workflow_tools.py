"""Workflow tools, which are webhooks, as administrators register them."""

from typing import Annotated

from pydantic import AfterValidator, Field, JsonValue

from schema.tools import SERVER_SEPARATOR, ApprovalPolicy, RetryClass
from schema.web_addresses import WebAddress
from schema.wire import (
    ChangeModel,
    RequestModel,
    StorableText,
    Timestamp,
    VersionedModel,
    unset,
)


def _own_name(name: str) -> str:
    if SERVER_SEPARATOR in name:
        raise ValueError(
            "must not contain two underscores in a row, which mark tools of MCP servers"
        )
    return name


WorkflowToolName = Annotated[
    StorableText,
    Field(pattern=r"^[a-zA-Z][a-zA-Z0-9_-]{0,62}$", examples=["create_ticket"]),
    AfterValidator(_own_name),
]
Description = Annotated[
    StorableText,
    Field(
        min_length=1,
        max_length=2000,
        examples=["Opens a ticket with the help desk."],
        description="The description for the model.",
    ),
]
InputSchema = Annotated[
    dict[str, JsonValue],
    Field(
        description="A JSON schema (2020-12) of type `object`, without external references.",
        examples=[
            {
                "type": "object",
                "properties": {"title": {"type": "string"}},
                "required": ["title"],
            }
        ],
    ),
]
SigningSecret = Annotated[
    StorableText,
    Field(
        min_length=16,
        max_length=1000,
        repr=False,
        examples=["at least sixteen characters"],
        description="Signs the requests; never shown again.",
    ),
]
TimeoutSeconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False, examples=[30])]
Retry = Annotated[RetryClass, Field(strict=False)]
Approval = Annotated[ApprovalPolicy, Field(strict=False)]


class CreateWorkflowToolRequest(RequestModel):
    """A new workflow tool. Units: `timeoutS` is in seconds."""

    name: WorkflowToolName
    description: Description
    url: WebAddress
    input_schema: InputSchema
    secret: SigningSecret
    timeout_s: TimeoutSeconds = 30.0
    retry_class: Retry = RetryClass.KEYED
    approval: Approval = ApprovalPolicy.AUTO


class ChangeWorkflowToolRequest(ChangeModel):
    """A change of a workflow tool."""

    description: Description = unset()
    url: WebAddress = unset()
    input_schema: InputSchema = unset()
    secret: SigningSecret = unset()
    timeout_s: TimeoutSeconds = unset()
    retry_class: Retry = unset()
    approval: Approval = unset()
    enabled: bool = unset()


class WorkflowTool(VersionedModel):
    """A registered workflow tool; its secret is never returned."""

    name: str
    description: str
    url: str
    input_schema: dict[str, JsonValue]
    timeout_s: float
    retry_class: RetryClass
    approval: ApprovalPolicy
    enabled: bool
    problem: str | None = Field(
        description="Why it is not offered to models; any change of the tool offers it again."
    )
    created_at: Timestamp
    updated_at: Timestamp
