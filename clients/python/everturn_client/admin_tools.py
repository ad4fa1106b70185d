"""The groups under `/admin` about tools: tools of all kinds, MCP servers, workflow tools."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import SecretStr

from everturn_client import admin_models as models
from everturn_client.calls import (
    Call,
    change,
    creation,
    delete,
    fields,
    filters,
    get,
    listing,
    post,
)
from everturn_client.endpoints import Endpoint, Group, Listing, RunnerT


class AdminTools(Group[RunnerT]):
    """Tools of all kinds."""

    @Listing
    def list(
        self, *, kind: str | None = None, limit: int | None = None
    ) -> Call[models.AdministeredTool]:
        """List tools, `limit` on a page."""
        query = filters(kind=kind, limit=limit)
        return listing(models.AdministeredTool, "admin", "tools", query=query)

    @Endpoint
    def update(
        self,
        /,
        name: str,
        *,
        if_version: int | None = None,
        **changes: Any,  # noqa: ANN401 -- fields of a request
    ) -> Call[models.AdministeredTool]:
        """Update a tool's `enabled`, `approval`, `roles`, `retry_class`, timeout or cost."""
        body = fields(**changes)
        where = ("admin", "tools", name)
        return change(models.AdministeredTool, *where, body=body, version=if_version)

    @Endpoint
    def test(self, name: str, tool_input: Mapping[str, Any]) -> Call[models.ToolTest]:
        """Run a tool on an input."""
        body = {"input": dict(tool_input)}
        return post(models.ToolTest, "admin", "tools", name, "test", body=body, repeatable=False)


class McpServers(Group[RunnerT]):
    """MCP servers."""

    @Listing
    def list(self, *, limit: int | None = None) -> Call[models.McpServer]:
        """List servers, `limit` on a page."""
        return listing(models.McpServer, "admin", "mcp-servers", query=filters(limit=limit))

    @Endpoint
    def create_stdio(
        self,
        *,
        name: str,
        command: str,
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Call[models.McpServer]:
        """Register a server that the workers run as a process."""
        body = filters(name=name, transport="stdio", command=command, args=[*args], env=env)
        return creation(models.McpServer, "admin", "mcp-servers", body=body, key=idempotency_key)

    @Endpoint
    def create_http(
        self,
        *,
        name: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        oauth: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Call[models.McpServer]:
        """Register a server at a URL."""
        body = filters(name=name, transport="http", url=url, headers=headers, oauth=oauth)
        return creation(models.McpServer, "admin", "mcp-servers", body=body, key=idempotency_key)

    @Endpoint
    def get(self, name: str) -> Call[models.McpServer]:
        """Return a server."""
        return get(models.McpServer, "admin", "mcp-servers", name)

    @Endpoint
    def update(
        self,
        /,
        name: str,
        *,
        if_version: int | None = None,
        **changes: Any,  # noqa: ANN401 -- fields of a request
    ) -> Call[models.McpServer]:
        """Update a server."""
        body = fields(**changes)
        return change(models.McpServer, "admin", "mcp-servers", name, body=body, version=if_version)

    @Endpoint
    def delete(self, name: str) -> Call[None]:
        """Remove a server with its tools."""
        return delete("admin", "mcp-servers", name)

    @Endpoint
    def refresh(self, name: str) -> Call[models.McpServer]:
        """Refresh a server's list of tools."""
        return post(models.McpServer, "admin", "mcp-servers", name, "refresh")


class WorkflowTools(Group[RunnerT]):
    """Webhooks that turns may use as tools."""

    @Listing
    def list(self, *, limit: int | None = None) -> Call[models.WorkflowTool]:
        """List workflow tools, `limit` on a page."""
        return listing(models.WorkflowTool, "admin", "workflow-tools", query=filters(limit=limit))

    @Endpoint
    def create(  # noqa: PLR0913 -- one for each field
        self,
        *,
        name: str,
        description: str,
        url: str,
        input_schema: Mapping[str, Any],
        secret: str | SecretStr,
        timeout_s: float | None = None,
        retry_class: str | None = None,
        approval: str | None = None,
        idempotency_key: str | None = None,
    ) -> Call[models.WorkflowTool]:
        """Register a webhook as a tool; `secret` signs its calls."""
        body = filters(
            name=name,
            description=description,
            url=url,
            input_schema=input_schema,
            secret=secret,
            timeout_s=timeout_s,
            retry_class=retry_class,
            approval=approval,
        )
        where = ("admin", "workflow-tools")
        return creation(models.WorkflowTool, *where, body=body, key=idempotency_key)

    @Endpoint
    def get(self, name: str) -> Call[models.WorkflowTool]:
        """Return a workflow tool."""
        return get(models.WorkflowTool, "admin", "workflow-tools", name)

    @Endpoint
    def update(
        self,
        /,
        name: str,
        *,
        if_version: int | None = None,
        **changes: Any,  # noqa: ANN401 -- fields of a request
    ) -> Call[models.WorkflowTool]:
        """Update a workflow tool."""
        where = ("admin", "workflow-tools", name)
        return change(models.WorkflowTool, *where, body=fields(**changes), version=if_version)

    @Endpoint
    def delete(self, name: str) -> Call[None]:
        """Remove a workflow tool."""
        return delete("admin", "workflow-tools", name)
