"""Owns the administration of tools of all kinds over HTTP."""

from functools import partial
from typing import Annotated

from fastapi import Query, Request, Response

from api.dependencies import Services, WantedPage, may
from api.documentation import SIGNED_IN, error_docs
from api.envelope import Envelope, ListEnvelope, envelope, list_envelope, tagged
from api.errors import ApiError, value_or_raise
from api.group_router import GroupRouter
from api.parameters import IfMatch, ToolNamePath
from api.tool_refusals import tool_refused
from schema.actors import Actor
from schema.errors import ErrorCode
from schema.permissions import Permission
from schema.tools import (
    AdministeredTool,
    ChangeToolRequest,
    ToolKind,
    ToolTrialRequest,
    ToolTrialResult,
)

router = GroupRouter("/admin/tools", tag="admin")

Reader = Annotated[Actor, may(Permission.ADMIN_READ)]
Writer = Annotated[Actor, may(Permission.ADMIN_WRITE)]

_refused = partial(tool_refused, noun="tool")


@router.get("", summary="List all tools", responses=error_docs(*SIGNED_IN))
async def list_all_tools(
    request: Request,
    actor: Reader,
    services: Services,
    page: WantedPage,
    kind: Annotated[ToolKind | None, Query(description="Only tools of this kind.")] = None,
) -> ListEnvelope[AdministeredTool]:
    """Return the tools of every kind, by name, with what was decided about each."""
    found = await services.tools.administration.list_tools(actor, page, kind=kind)
    return list_envelope(request, found)


@router.patch(
    "/{name}",
    summary="Decide about a tool",
    responses=error_docs(*SIGNED_IN, ErrorCode.NOT_FOUND, ErrorCode.PRECONDITION_FAILED),
)
async def change_tool(
    request: Request,
    response: Response,
    name: ToolNamePath,
    body: ChangeToolRequest,
    actor: Writer,
    services: Services,
    versions: IfMatch,
) -> Envelope[AdministeredTool]:
    """Switch a tool off or on, or say whether its calls need approval and who may use it."""
    tool = value_or_raise(
        await services.tools.administration.change(actor, name, body, versions=versions), _refused
    )
    return tagged(request, response, tool)


@router.post(
    "/{name}/test",
    summary="Try a tool",
    responses=error_docs(*SIGNED_IN, ErrorCode.NOT_FOUND),
)
async def test_tool(
    request: Request,
    name: ToolNamePath,
    body: ToolTrialRequest,
    actor: Writer,
    services: Services,
) -> Envelope[ToolTrialResult]:
    """Run a tool of any kind on an input, switched off or not, as a turn of yours would.

    What the tool does wrong is an outcome; it has 30 seconds, or fewer if it says so.
    """
    trial = value_or_raise(await services.tools.trials.begin(actor, name, body), _refused)
    if not await services.temporal.run_trial(trial):
        raise ApiError(ErrorCode.SERVICE_UNAVAILABLE, "No worker took the tool. Try again later.")
    outcome = await services.tools.trials.outcome(actor, trial)
    if outcome is None:
        raise ApiError(ErrorCode.NOT_FOUND, "The trial was deleted meanwhile.")
    return envelope(request, outcome)
