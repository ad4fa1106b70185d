"""Tools as users see them."""

from typing import Annotated

from fastapi import Request

from api.access import may
from api.dependencies import Tools
from api.envelope import Envelope, ListEnvelope, envelope, list_envelope
from api.error_messages import TOOL_NOT_ALLOWED
from api.errors import ApiError, value_or_raise
from api.openapi import OF_ONE, SIGNED_IN, error_docs
from api.parameters import RequestedPage, ToolNamePath
from api.routing import GroupRouter
from schema.actors import Actor
from schema.errors import ErrorCode
from schema.permissions import Permission
from schema.result import Err
from schema.tools import Tool
from services.resources import Unreachable

router = GroupRouter("/tools", tag="tools")

Reader = Annotated[Actor, may(Permission.TOOLS_READ)]


@router.get("", name="tools.list", summary="List tools", responses=error_docs(*SIGNED_IN))
async def list_tools(
    request: Request, actor: Reader, tools: Tools, page: RequestedPage
) -> ListEnvelope[Tool]:
    """Return the tools that the caller may use, by name.

    `enabledByUser` is false for those in `disabledTools` of the caller's preferences.
    """
    return list_envelope(request, await tools.available.list_tools(actor, page))


@router.get("/{name}", name="tools.get", summary="Get a tool", responses=error_docs(*OF_ONE))
async def get_tool(
    request: Request, name: ToolNamePath, actor: Reader, tools: Tools
) -> Envelope[Tool]:
    """Return one tool; 403 if it isn't available to the caller's role or plan."""
    found = await tools.available.get(actor, name)
    if isinstance(found, Err) and found.error is Unreachable.FORBIDDEN:
        raise ApiError(ErrorCode.FORBIDDEN, TOOL_NOT_ALLOWED)
    return envelope(request, value_or_raise(found, "tool"))
