"""Moves open runs of other versions to one whose code can follow their histories."""

from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.field_mask_pb2 import FieldMask
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflow.v1 import WorkflowExecutionOptions
from temporalio.api.workflowservice.v1 import UpdateWorkflowExecutionOptionsRequest
from temporalio.client import Client
from temporalio.common import PinnedVersioningOverride, WorkerDeploymentVersion
from temporalio.service import RPCError, RPCStatusCode

from schema.names import DEPLOYMENT
from workers.deployment.versions import DeploymentError, WorkerVersions, pinned_to
from workers.replay import HistoryReplays, Replayed, TemporalReadError, history_of
from workers.workflow_types import ALL_WORKFLOWS


@dataclass(frozen=True, slots=True)
class Move:
    """What became of the open runs of other versions."""

    moved: int
    staying: Sequence[Replayed]


class ForeignCodeError(DeploymentError):
    """Runs are to move to a version that is not that of this code."""

    def __init__(self, build_id: str, own: str | None) -> None:
        super().__init__(
            f"Only the code of version {build_id} can tell what can move to it; this is "
            f"{f'version {own}' if own else 'without a version'}. Run this from its image."
        )


class NotCurrentError(DeploymentError):
    """Runs are to move to a version that gets no new work, and may have no workers."""

    def __init__(self, build_id: str, current: str | None) -> None:
        super().__init__(
            f"Version {build_id} is not current{f', {current} is' if current else ''}. Runs would "
            f"wait for its workers. Promote it first: everturn deployment promote --move"
        )


async def move_runs(
    client: Client, build_id: str, *, workflows: Sequence[type] = ALL_WORKFLOWS
) -> Move:
    """Pin the open runs of other versions to this one, which is that of this process's code.

    A run stays where it is if this code can't follow its history.
    Errors: DeploymentError, TemporalReadError.
    """
    replays = HistoryReplays(workflows=workflows, data_converter=client.data_converter)
    status = await WorkerVersions(client).status()
    moved, staying = 0, list[Replayed]()
    try:
        for version in status.versions:
            if version.build_id == build_id or not version.open_runs:
                continue
            async for run in client.list_workflows(pinned_to(version.build_id)):
                history = await history_of(client, run.id, run.run_id)
                if history is None:
                    continue
                replayed = await replays.replay(history)
                if replayed.problem is not None:
                    staying.append(replayed)
                elif await _pin(client, run.id, run.run_id, build_id):
                    moved += 1
    except RPCError as error:
        raise TemporalReadError(error) from error
    return Move(moved, tuple(staying))


async def _pin(client: Client, workflow_id: str, run_id: str | None, build_id: str) -> bool:
    """Pin a run to a version; False if it has ended meanwhile."""
    override = PinnedVersioningOverride(WorkerDeploymentVersion(DEPLOYMENT, build_id))
    try:
        await client.workflow_service.update_workflow_execution_options(
            UpdateWorkflowExecutionOptionsRequest(
                namespace=client.namespace,
                workflow_execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id or ""),
                workflow_execution_options=WorkflowExecutionOptions(
                    versioning_override=override._to_proto()  # noqa: SLF001 -- the SDK has no public way
                ),
                update_mask=FieldMask(paths=["versioning_override"]),
                identity=client.identity,
            )
        )
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        return False
    return True
