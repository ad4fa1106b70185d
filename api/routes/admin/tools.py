"""Owns the administration of tools of all kinds over HTTP."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from api.dependencies import Services, WantedPage, may
from api.envelope import Envelope, ListEnvelope, envelope, list_envelope, tagged
from api.errors import error_docs
from api.parameters import IfMatch, ToolNamePath
from api.tool_refusals import tool_refused
from schema.actors import Actor
from schema.errors import ErrorCode
from schema.permissions import Permission
from schema.result import Err
from schema.tools import (
    AdministeredTool,
    ChangeToolRequest,
    TestToolRequest,
    ToolKind,
    ToolTest,
)

router = APIRouter(prefix="/admin/tools", tags=["admin"])

Reader = Annotated[Actor, may(Permission.ADMIN_READ)]
Writer = Annotated[Actor, may(Permission.ADMIN_WRITE)]

_SIGNED_IN: Final = (ErrorCode.UNAUTHENTICATED, ErrorCode.FORBIDDEN)


@router.get("", summary="List all tools", responses=error_docs(*_SIGNED_IN))
async def list_all_tools(
    request: Request,
    actor: Reader,
    services: Services,
    page: WantedPage,
    kind: Annotated[ToolKind | None, Query(description="Only tools of this kind.")] = None,
) -> ListEnvelope[AdministeredTool]:
    """Return the tools of every kind, by name, with what was decided about each."""
    found = await services.tool_administration.list_tools(actor, page, kind=kind)
    return list_envelope(request, found)


@router.patch(
    "/{name}",
    summary="Decide about a tool",
    responses=error_docs(*_SIGNED_IN, ErrorCode.NOT_FOUND, ErrorCode.PRECONDITION_FAILED),
)
async def change_tool(
    request: Request,
    response: Response,
    name: ToolNamePath,
    body: ChangeToolRequest,
    actor: Writer,
    services: Services,
    version: IfMatch,
) -> Envelope[AdministeredTool]:
    """Switch a tool off or on, or say whether its calls need approval and who may use it."""
    result = await services.tool_administration.change(actor, name, body, version=version)
    if isinstance(result, Err):
        raise tool_refused(result.error, "tool")
    return tagged(request, response, result.value)


@router.post(
    "/{name}/test",
    summary="Try a tool",
    responses=error_docs(*_SIGNED_IN, ErrorCode.NOT_FOUND, ErrorCode.CONFLICT),
)
async def test_tool(
    request: Request,
    name: ToolNamePath,
    body: TestToolRequest,
    actor: Writer,
    services: Services,
) -> Envelope[ToolTest]:
    """Run a local tool on an input, switched off or not. A failure of the tool is an outcome."""
    result = await services.tool_administration.test(actor, name, body)
    if isinstance(result, Err):
        raise tool_refused(result.error, "tool")
    return envelope(request, result.value)
