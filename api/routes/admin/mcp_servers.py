"""Owns the administration of MCP servers over HTTP."""

from functools import partial
from typing import Annotated

from fastapi import Body, Request, Response

from api.dependencies import Services, WantedPage, may
from api.documentation import OF_ONE, SIGNED_IN, error_docs
from api.envelope import Envelope, ListEnvelope, created, list_envelope, tagged
from api.errors import ApiError, value_or_raise
from api.group_router import GroupRouter
from api.parameters import IdempotencyKey, IfMatch, ServerNamePath
from api.temporal_gateway import RefreshProgress
from api.tool_refusals import tool_refused
from schema.actors import Actor
from schema.errors import ErrorCode
from schema.mcp_servers import (
    ChangeMcpServerRequest,
    CreateMcpServerRequest,
    McpServer,
    RefreshMcpServerInput,
)
from schema.permissions import Permission

router = GroupRouter("/admin/mcp-servers", tag="admin")

Reader = Annotated[Actor, may(Permission.ADMIN_READ)]
Writer = Annotated[Actor, may(Permission.ADMIN_WRITE)]

_refused = partial(tool_refused, noun="MCP server")


@router.post(
    "",
    status_code=201,
    summary="Register an MCP server",
    responses=error_docs(*SIGNED_IN, ErrorCode.CONFLICT, ErrorCode.IDEMPOTENCY_CONFLICT),
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
    server = value_or_raise(
        await services.tools.mcp_servers.create(actor, body, key=idempotency_key), _refused
    )
    _list_tools(services, server)
    return created(request, response, server, at=f"{request.url.path}/{server.name}")


@router.get("", summary="List MCP servers", responses=error_docs(*SIGNED_IN))
async def list_mcp_servers(
    request: Request, actor: Reader, services: Services, page: WantedPage
) -> ListEnvelope[McpServer]:
    """Return the registered servers, by name."""
    return list_envelope(request, await services.tools.mcp_servers.list_servers(actor, page))


@router.get("/{name}", summary="Read an MCP server", responses=error_docs(*OF_ONE))
async def get_mcp_server(
    request: Request, response: Response, name: ServerNamePath, actor: Reader, services: Services
) -> Envelope[McpServer]:
    """Return one server, with what came of the last attempt to list its tools."""
    server = value_or_raise(await services.tools.mcp_servers.get(actor, name), _refused)
    return tagged(request, response, server)


@router.patch(
    "/{name}",
    summary="Configure an MCP server anew",
    responses=error_docs(*OF_ONE, ErrorCode.CONFLICT, ErrorCode.PRECONDITION_FAILED),
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
    """Change how a server is reached, or switch it off or on; its tools are listed anew."""
    server = value_or_raise(
        await services.tools.mcp_servers.change(actor, name, body, versions=versions), _refused
    )
    _list_tools(services, server)
    return tagged(request, response, server)


@router.delete(
    "/{name}", status_code=204, summary="Delete an MCP server", responses=error_docs(*OF_ONE)
)
async def delete_mcp_server(name: ServerNamePath, actor: Writer, services: Services) -> Response:
    """Delete a server with its tools and what was decided about them."""
    value_or_raise(await services.tools.mcp_servers.delete(actor, name), _refused)
    return Response(status_code=204)


@router.post(
    "/{name}/refresh",
    summary="List an MCP server's tools anew",
    responses={
        202: {"model": Envelope[McpServer], "description": "It takes longer than the wait limit."},
        **error_docs(*OF_ONE),
    },
)
async def refresh_mcp_server(
    request: Request, response: Response, name: ServerNamePath, actor: Writer, services: Services
) -> Envelope[McpServer]:
    """Connect to the server and list its tools; `status` and `problem` say what came of it."""
    wanted = value_or_raise(await services.tools.mcp_servers.ask_for_refresh(actor, name), _refused)
    progress = await services.temporal.refresh_server(wanted)
    if progress is RefreshProgress.UNAVAILABLE:
        raise ApiError(
            ErrorCode.SERVICE_UNAVAILABLE, "No worker could list the tools. Try again shortly."
        )
    server = value_or_raise(await services.tools.mcp_servers.get(actor, name), _refused)
    response.status_code = 202 if progress is RefreshProgress.RUNNING else 200
    return tagged(request, response, server)


def _list_tools(services: Services, server: McpServer) -> None:
    if server.enabled:
        configured = RefreshMcpServerInput(name=server.name, configured_at=server.updated_at)
        services.temporal.refresh_server_in_background(configured)
