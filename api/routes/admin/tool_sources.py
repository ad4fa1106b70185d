"""Administration of the sources of tools: MCP servers and workflow tools."""

from typing import Annotated

from fastapi import Body, Request, Response

from api.access import may
from api.dependencies import Services, Tools
from api.envelope import Envelope, ListEnvelope, created, list_envelope, tagged
from api.error_messages import NO_REFRESH
from api.errors import ApiError, value_or_raise
from api.openapi import OF_ONE, SIGNED_IN, error_docs
from api.parameters import IdempotencyKey, IfMatch, RequestedPage, ServerNamePath, ToolNamePath
from api.routing import GroupRouter
from api.temporal_gateway import RefreshProgress, TemporalGateway
from schema.actors import Actor
from schema.errors import ErrorCode
from schema.mcp_servers import (
    ChangeMcpServerRequest,
    CreateMcpServerRequest,
    McpServer,
    RefreshMcpServerInput,
)
from schema.permissions import Permission
from schema.workflow_tools import (
    ChangeWorkflowToolRequest,
    CreateWorkflowToolRequest,
    WorkflowTool,
)

router = GroupRouter("/admin", tag="admin")

Reader = Annotated[Actor, may(Permission.ADMIN_READ)]
Writer = Annotated[Actor, may(Permission.ADMIN_WRITE)]

_SERVERS = "/mcp-servers"
_WORKFLOW_TOOLS = "/workflow-tools"
_CREATING = error_docs(*SIGNED_IN, ErrorCode.CONFLICT, ErrorCode.IDEMPOTENCY_CONFLICT)
_CHANGING = error_docs(*OF_ONE, ErrorCode.CONFLICT, ErrorCode.PRECONDITION_FAILED)


@router.post(
    _SERVERS,
    name="admin.mcpServers.create",
    status_code=201,
    summary="Register an MCP server",
    responses=_CREATING,
)
async def create_mcp_server(
    request: Request,
    response: Response,
    body: Annotated[CreateMcpServerRequest, Body()],
    actor: Writer,
    services: Services,
    idempotency_key: IdempotencyKey = None,
) -> Envelope[McpServer]:
    """Register a server; its tools are listed in the background."""
    result = await services.tools.mcp_servers.create(actor, body, key=idempotency_key)
    server = value_or_raise(result, "MCP server")
    _refresh_in_background(services.temporal, server)
    return created(request, response, server, at=f"{request.url.path}/{server.name}")


@router.get(
    _SERVERS,
    name="admin.mcpServers.list",
    summary="List MCP servers",
    responses=error_docs(*SIGNED_IN),
)
async def list_mcp_servers(
    request: Request, actor: Reader, tools: Tools, page: RequestedPage
) -> ListEnvelope[McpServer]:
    """Return the registered servers, by name."""
    return list_envelope(request, await tools.mcp_servers.list_servers(actor, page))


@router.get(
    f"{_SERVERS}/{{name}}",
    name="admin.mcpServers.get",
    summary="Get an MCP server",
    responses=error_docs(*OF_ONE),
)
async def get_mcp_server(
    request: Request, response: Response, name: ServerNamePath, actor: Reader, tools: Tools
) -> Envelope[McpServer]:
    """Return one server, with the result of its last refresh."""
    server = value_or_raise(await tools.mcp_servers.get(actor, name), "MCP server")
    return tagged(request, response, server)


@router.patch(
    f"{_SERVERS}/{{name}}",
    name="admin.mcpServers.update",
    summary="Update an MCP server",
    responses=_CHANGING,
)
async def change_mcp_server(
    request: Request,
    response: Response,
    name: ServerNamePath,
    body: ChangeMcpServerRequest,
    actor: Writer,
    services: Services,
    versions: IfMatch,
) -> Envelope[McpServer]:
    """Change a server's configuration, or enable or disable it; its tools are listed again."""
    changed = await services.tools.mcp_servers.change(actor, name, body, versions=versions)
    server = value_or_raise(changed, "MCP server")
    _refresh_in_background(services.temporal, server)
    return tagged(request, response, server)


@router.delete(
    f"{_SERVERS}/{{name}}",
    name="admin.mcpServers.delete",
    status_code=204,
    summary="Delete an MCP server",
    responses=error_docs(*OF_ONE),
)
async def delete_mcp_server(name: ServerNamePath, actor: Writer, tools: Tools) -> Response:
    """Delete a server with its tools and their settings."""
    value_or_raise(await tools.mcp_servers.delete(actor, name), "MCP server")
    return Response(status_code=204)


@router.post(
    f"{_SERVERS}/{{name}}/refresh",
    name="admin.mcpServers.refresh",
    summary="Refresh tools",
    responses={
        202: {"model": Envelope[McpServer], "description": "The refresh is still running."},
        **error_docs(*OF_ONE),
    },
)
async def refresh_mcp_server(
    request: Request, response: Response, name: ServerNamePath, actor: Writer, services: Services
) -> Envelope[McpServer]:
    """Connect to the server and list its tools; `status` and `problem` hold the result."""
    servers = services.tools.mcp_servers
    refresh = value_or_raise(await servers.request_refresh(actor, name), "MCP server")
    progress = await services.temporal.refresh_server(refresh)
    if progress is RefreshProgress.UNAVAILABLE:
        raise ApiError(ErrorCode.SERVICE_UNAVAILABLE, NO_REFRESH)
    server = value_or_raise(await servers.get(actor, name), "MCP server")
    response.status_code = 202 if progress is RefreshProgress.RUNNING else 200
    return tagged(request, response, server)


def _refresh_in_background(temporal: TemporalGateway, server: McpServer) -> None:
    if server.enabled:
        refresh = RefreshMcpServerInput(name=server.name, configured_at=server.updated_at)
        temporal.refresh_server_in_background(refresh)


@router.post(
    _WORKFLOW_TOOLS,
    name="admin.workflowTools.create",
    status_code=201,
    summary="Register a workflow tool",
    responses=_CREATING,
)
async def create_workflow_tool(
    request: Request,
    response: Response,
    body: CreateWorkflowToolRequest,
    actor: Writer,
    tools: Tools,
    idempotency_key: IdempotencyKey = None,
) -> Envelope[WorkflowTool]:
    """Register a webhook as a tool; its secret is stored encrypted and never returned."""
    result = await tools.workflow_tools.create(actor, body, key=idempotency_key)
    tool = value_or_raise(result, "workflow tool")
    return created(request, response, tool, at=f"{request.url.path}/{tool.name}")


@router.get(
    _WORKFLOW_TOOLS,
    name="admin.workflowTools.list",
    summary="List workflow tools",
    responses=error_docs(*SIGNED_IN),
)
async def list_workflow_tools(
    request: Request, actor: Reader, tools: Tools, page: RequestedPage
) -> ListEnvelope[WorkflowTool]:
    """Return the registered workflow tools, by name."""
    return list_envelope(request, await tools.workflow_tools.list_tools(actor, page))


@router.get(
    f"{_WORKFLOW_TOOLS}/{{name}}",
    name="admin.workflowTools.get",
    summary="Get a workflow tool",
    responses=error_docs(*OF_ONE),
)
async def get_workflow_tool(
    request: Request, response: Response, name: ToolNamePath, actor: Reader, tools: Tools
) -> Envelope[WorkflowTool]:
    """Return one workflow tool."""
    tool = value_or_raise(await tools.workflow_tools.get(actor, name), "workflow tool")
    return tagged(request, response, tool)


@router.patch(
    f"{_WORKFLOW_TOOLS}/{{name}}",
    name="admin.workflowTools.update",
    summary="Update a workflow tool",
    responses=_CHANGING,
)
async def change_workflow_tool(
    request: Request,
    response: Response,
    name: ToolNamePath,
    body: ChangeWorkflowToolRequest,
    actor: Writer,
    tools: Tools,
    versions: IfMatch,
) -> Envelope[WorkflowTool]:
    """Change fields of a workflow tool, including its secret."""
    changed = await tools.workflow_tools.change(actor, name, body, versions=versions)
    return tagged(request, response, value_or_raise(changed, "workflow tool"))


@router.delete(
    f"{_WORKFLOW_TOOLS}/{{name}}",
    name="admin.workflowTools.delete",
    status_code=204,
    summary="Delete a workflow tool",
    responses=error_docs(*OF_ONE),
)
async def delete_workflow_tool(name: ToolNamePath, actor: Writer, tools: Tools) -> Response:
    """Delete a workflow tool with its settings."""
    value_or_raise(await tools.workflow_tools.delete(actor, name), "workflow tool")
    return Response(status_code=204)
