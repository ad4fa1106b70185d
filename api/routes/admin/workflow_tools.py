"""Owns the administration of workflow tools over HTTP."""

from functools import partial
from typing import Annotated

from fastapi import Request, Response

from api.dependencies import Services, WantedPage, may
from api.documentation import OF_ONE, SIGNED_IN, error_docs
from api.envelope import Envelope, ListEnvelope, created, list_envelope, tagged
from api.errors import value_or_raise
from api.group_router import GroupRouter
from api.parameters import IdempotencyKey, IfMatch, ToolNamePath
from api.tool_refusals import tool_refused
from schema.actors import Actor
from schema.errors import ErrorCode
from schema.permissions import Permission
from schema.workflow_tools import (
    ChangeWorkflowToolRequest,
    CreateWorkflowToolRequest,
    WorkflowTool,
)

router = GroupRouter("/admin/workflow-tools", tag="admin")

Reader = Annotated[Actor, may(Permission.ADMIN_READ)]
Writer = Annotated[Actor, may(Permission.ADMIN_WRITE)]

_refused = partial(tool_refused, noun="workflow tool")


@router.post(
    "",
    status_code=201,
    summary="Register a workflow tool",
    responses=error_docs(*SIGNED_IN, ErrorCode.CONFLICT, ErrorCode.IDEMPOTENCY_CONFLICT),
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
    tool = value_or_raise(
        await services.tools.workflow_tools.create(actor, body, key=idempotency_key), _refused
    )
    return created(request, response, tool, at=f"{request.url.path}/{tool.name}")


@router.get("", summary="List workflow tools", responses=error_docs(*SIGNED_IN))
async def list_workflow_tools(
    request: Request, actor: Reader, services: Services, page: WantedPage
) -> ListEnvelope[WorkflowTool]:
    """Return the registered workflow tools, by name."""
    return list_envelope(request, await services.tools.workflow_tools.list_tools(actor, page))


@router.get("/{name}", summary="Read a workflow tool", responses=error_docs(*OF_ONE))
async def get_workflow_tool(
    request: Request, response: Response, name: ToolNamePath, actor: Reader, services: Services
) -> Envelope[WorkflowTool]:
    """Return one workflow tool."""
    tool = value_or_raise(await services.tools.workflow_tools.get(actor, name), _refused)
    return tagged(request, response, tool)


@router.patch(
    "/{name}",
    summary="Change a workflow tool",
    responses=error_docs(*OF_ONE, ErrorCode.CONFLICT, ErrorCode.PRECONDITION_FAILED),
)
async def change_workflow_tool(
    request: Request,
    response: Response,
    name: ToolNamePath,
    body: ChangeWorkflowToolRequest,
    actor: Writer,
    services: Services,
    versions: IfMatch,
) -> Envelope[WorkflowTool]:
    """Change some fields of a workflow tool, its secret among them."""
    tool = value_or_raise(
        await services.tools.workflow_tools.change(actor, name, body, versions=versions), _refused
    )
    return tagged(request, response, tool)


@router.delete(
    "/{name}", status_code=204, summary="Delete a workflow tool", responses=error_docs(*OF_ONE)
)
async def delete_workflow_tool(name: ToolNamePath, actor: Writer, services: Services) -> Response:
    """Delete a workflow tool with what was decided about it."""
    value_or_raise(await services.tools.workflow_tools.delete(actor, name), _refused)
    return Response(status_code=204)
