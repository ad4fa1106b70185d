"""Owns tools over HTTP as users see them."""

from typing import Annotated

from fastapi import Request

from api.dependencies import Services, WantedPage, may
from api.documentation import OF_ONE, SIGNED_IN, error_docs
from api.envelope import Envelope, ListEnvelope, envelope, list_envelope
from api.errors import ApiError, value_or_raise
from api.group_router import GroupRouter
from api.parameters import ToolNamePath
from schema.actors import Actor
from schema.errors import ErrorCode
from schema.permissions import Permission
from schema.tools import Tool
from services.resources import Unreachable

router = GroupRouter("/tools", tag="tools")

Reader = Annotated[Actor, may(Permission.TOOLS_READ)]


@router.get(
    "",
    summary="List tools",
    responses=error_docs(*SIGNED_IN),
)
async def list_tools(
    request: Request, actor: Reader, services: Services, page: WantedPage
) -> ListEnvelope[Tool]:
    """Return the tools that the caller may use, by name.

    Those that they switched off, with `disabledTools` of their preferences, are marked so.
    """
    return list_envelope(request, await services.tools.available.list_tools(actor, page))


@router.get(
    "/{name}",
    summary="Read a tool",
    responses=error_docs(*OF_ONE),
)
async def get_tool(
    request: Request, name: ToolNamePath, actor: Reader, services: Services
) -> Envelope[Tool]:
    """Return one tool; 403 where it is for other roles or plans."""
    tool = value_or_raise(await services.tools.available.get(actor, name), _refused)
    return envelope(request, tool)


def _refused(refusal: Unreachable) -> ApiError:
    if refusal is Unreachable.MISSING:
        return ApiError(ErrorCode.NOT_FOUND, "There is no such tool.")
    return ApiError(ErrorCode.FORBIDDEN, "This tool is not for your role or plan.")
