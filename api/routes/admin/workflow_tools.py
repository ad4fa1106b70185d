"""Owns the administration of workflow tools over HTTP."""

from typing import Annotated, Final

from fastapi import APIRouter, Request, Response

from api.dependencies import Services, WantedPage, may
from api.envelope import Envelope, ListEnvelope, list_envelope, tagged
from api.errors import error_docs
from api.parameters import IdempotencyKey, IfMatch, ToolNamePath
from api.tool_refusals import tool_refused
from schema.actors import Actor
from schema.errors import ErrorCode
from schema.permissions import Permission
from schema.result import Err
from schema.workflow_tools import (
    ChangeWorkflowToolRequest,
    CreateWorkflowToolRequest,
    WorkflowTool,
)

router = APIRouter(prefix="/admin/workflow-tools", tags=["admin"])

Reader = Annotated[Actor, may(Permission.ADMIN_READ)]
Writer = Annotated[Actor, may(Permission.ADMIN_WRITE)]

_SIGNED_IN: Final = (ErrorCode.UNAUTHENTICATED, ErrorCode.FORBIDDEN)
_OF_ONE: Final = (*_SIGNED_IN, ErrorCode.NOT_FOUND)


@router.post(
    "",
    status_code=201,
    summary="Register a workflow tool",
    responses=error_docs(*_OF_ONE, ErrorCode.CONFLICT, ErrorCode.IDEMPOTENCY_CONFLICT),
)
async def create_workflow_tool(
    request: Request,
    response: Response,
    body: CreateWorkflowToolRequest,
    actor: Writer,
    services: Services,
    idempotency_key: IdempotencyKey = None,
) -> Envelope[WorkflowTool]:
    """Register a webhook as a tool; its secret is kept encrypted and never shown."""
    result = await services.workflow_tools.create(actor, body, key=idempotency_key)
    if isinstance(result, Err):
        raise tool_refused(result.error, "workflow tool")
    return tagged(request, response, result.value)


@router.get("", summary="List workflow tools", responses=error_docs(*_SIGNED_IN))
async def list_workflow_tools(
    request: Request, actor: Reader, services: Services, page: WantedPage
) -> ListEnvelope[WorkflowTool]:
    """Return the registered workflow tools, by name."""
    return list_envelope(request, await services.workflow_tools.list_tools(actor, page))


@router.get("/{name}", summary="Read a workflow tool", responses=error_docs(*_OF_ONE))
async def get_workflow_tool(
    request: Request, response: Response, name: ToolNamePath, actor: Reader, services: Services
) -> Envelope[WorkflowTool]:
    """Return one workflow tool."""
    result = await services.workflow_tools.get(actor, name)
    if isinstance(result, Err):
        raise tool_refused(result.error, "workflow tool")
    return tagged(request, response, result.value)


@router.patch(
    "/{name}",
    summary="Change a workflow tool",
    responses=error_docs(*_OF_ONE, ErrorCode.CONFLICT, ErrorCode.PRECONDITION_FAILED),
)
async def change_workflow_tool(
    request: Request,
    response: Response,
    name: ToolNamePath,
    body: ChangeWorkflowToolRequest,
    actor: Writer,
    services: Services,
    version: IfMatch,
) -> Envelope[WorkflowTool]:
    """Change some fields of a workflow tool, its secret among them."""
    result = await services.workflow_tools.change(actor, name, body, version=version)
    if isinstance(result, Err):
        raise tool_refused(result.error, "workflow tool")
    return tagged(request, response, result.value)


@router.delete(
    "/{name}", status_code=204, summary="Delete a workflow tool", responses=error_docs(*_OF_ONE)
)
async def delete_workflow_tool(name: ToolNamePath, actor: Writer, services: Services) -> Response:
    """Delete a workflow tool with what was decided about it."""
    result = await services.workflow_tools.delete(actor, name)
    if isinstance(result, Err):
        raise tool_refused(result.error, "workflow tool")
    return Response(status_code=204)
