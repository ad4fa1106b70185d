"""Administration of tools of all kinds."""

from typing import Annotated

from fastapi import Query, Request, Response

from api.access import may
from api.dependencies import Services, Tools
from api.envelope import Envelope, ListEnvelope, envelope, list_envelope, tagged
from api.error_messages import NO_TRIAL, TRIAL_DELETED
from api.errors import ApiError, value_or_raise
from api.openapi import SIGNED_IN, error_docs
from api.parameters import IfMatch, RequestedPage, ToolNamePath
from api.routing import GroupRouter
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


@router.get("", name="admin.tools.list", summary="List all tools", responses=error_docs(*SIGNED_IN))
async def list_all_tools(
    request: Request,
    actor: Reader,
    tools: Tools,
    page: RequestedPage,
    kind: Annotated[ToolKind | None, Query(description="Filter by kind.")] = None,
) -> ListEnvelope[AdministeredTool]:
    """Return the tools of every kind, by name, with their settings."""
    return list_envelope(request, await tools.administration.list_tools(actor, page, kind=kind))


@router.patch(
    "/{name}",
    name="admin.tools.update",
    summary="Update a tool's settings",
    responses=error_docs(*SIGNED_IN, ErrorCode.NOT_FOUND, ErrorCode.PRECONDITION_FAILED),
)
async def change_tool(
    request: Request,
    response: Response,
    name: ToolNamePath,
    body: ChangeToolRequest,
    actor: Writer,
    tools: Tools,
    versions: IfMatch,
) -> Envelope[AdministeredTool]:
    """Enable or disable a tool, or set whether its calls need approval and who may use it."""
    changed = await tools.administration.change(actor, name, body, versions=versions)
    return tagged(request, response, value_or_raise(changed, "tool"))


@router.post(
    "/{name}/test",
    name="admin.tools.test",
    summary="Test a tool",
    responses=error_docs(*SIGNED_IN, ErrorCode.NOT_FOUND),
)
async def test_tool(
    request: Request, name: ToolNamePath, body: ToolTrialRequest, actor: Writer, services: Services
) -> Envelope[ToolTrialResult]:
    """Run any tool, enabled or not, on an input, as a turn of yours would.

    A tool error is a result. The tool has 30 seconds, or its own timeout if that is shorter.
    """
    trials = services.tools.trials
    trial = value_or_raise(await trials.begin(actor, name, body), "tool")
    if not await services.temporal.run_trial(trial):
        raise ApiError(ErrorCode.SERVICE_UNAVAILABLE, NO_TRIAL)
    outcome = await trials.outcome(actor, trial)
    if outcome is None:
        raise ApiError(ErrorCode.NOT_FOUND, TRIAL_DELETED)
    return envelope(request, outcome)
