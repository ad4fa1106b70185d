"""Rows of tools: administrators' settings, MCP servers, workflow tools, trials."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Numeric, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field, SQLModel

from schema.tables.columns import creation_moment, moment


class ToolSettingsRow(SQLModel, table=True):
    """The administrators' settings of a tool; null keeps the value of its definition."""

    __tablename__ = "tool_settings"

    name: str = Field(primary_key=True)
    enabled: bool = True
    approval: str | None = None
    roles: list[str] | None = Field(default=None, sa_type=ARRAY(Text))
    retry_class: str | None = None
    timeout_s: float | None = None
    cost_usd: Decimal | None = Field(default=None, sa_type=Numeric(20, 10))
    version: int = 1
    updated_at: datetime = creation_moment()


class McpServerRow(SQLModel, table=True):
    """An MCP server; `secrets` are its environment or headers, encrypted.

    `oauth` is the configuration of the client credentials flow, whose secret is `oauth_secret`.
    """

    __tablename__ = "mcp_servers"

    name: str = Field(primary_key=True)
    transport: str
    command: str | None = None
    args: list[str] = Field(default_factory=list, sa_type=ARRAY(Text))
    url: str | None = None
    secrets: bytes | None = None
    secret_names: list[str] = Field(default_factory=list, sa_type=ARRAY(Text))
    oauth: dict[str, Any] | None = Field(default=None, sa_type=JSONB)
    oauth_secret: bytes | None = None
    enabled: bool = True
    status: str = "unknown"
    problem: str | None = None
    checked_at: datetime | None = moment()
    version: int = 1
    created_at: datetime = creation_moment()
    updated_at: datetime = creation_moment()


class McpToolRow(SQLModel, table=True):
    """A tool as its MCP server listed it; `output_schema` is null without a usable one.

    `name_on_server` is null where it is `name`. A tool with a `problem` is not offered to models.
    """

    __tablename__ = "mcp_tools"

    server: str = Field(primary_key=True, foreign_key="mcp_servers.name")
    name: str = Field(primary_key=True)
    name_on_server: str | None = None
    description: str = ""
    input_schema: dict[str, Any] = Field(sa_type=JSONB)
    output_schema: dict[str, Any] | None = Field(default=None, sa_type=JSONB(none_as_null=True))
    retry_class: str = "never"
    problem: str | None = None
    listed_at: datetime = creation_moment()


class WorkflowToolRow(SQLModel, table=True):
    """A tool that is a webhook; `secret` signs its requests and is encrypted.

    With a `problem` it is not offered to models.
    """

    __tablename__ = "workflow_tools"

    name: str = Field(primary_key=True)
    description: str
    url: str
    input_schema: dict[str, Any] = Field(sa_type=JSONB)
    secret: bytes
    timeout_s: float = 30
    retry_class: str = "keyed"
    approval: str = "auto"
    enabled: bool = True
    problem: str | None = None
    version: int = 1
    created_at: datetime = creation_moment()
    updated_at: datetime = creation_moment()


class ToolTrialRow(SQLModel, table=True):
    """A trial of a tool: an administrator's input and its outcome."""

    __tablename__ = "tool_tests"

    id: UUID = Field(primary_key=True)
    tool: str
    input: dict[str, Any] = Field(sa_type=JSONB)
    output: str | None = None
    is_error: bool | None = None
    duration_ms: int | None = None
    user_id: UUID = Field(foreign_key="users.id")
    created_at: datetime = creation_moment()


class ToolCatalogueRow(SQLModel, table=True):
    """Counts changes of tools and their settings: a table of one row."""

    __tablename__ = "tool_catalogue"

    id: int = Field(primary_key=True)
    version: int
