"""The versions of the workers in Temporal: which is current, and what still runs on others."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from temporalio.api.enums.v1 import WorkerDeploymentVersionStatus
from temporalio.api.workflowservice.v1 import (
    DescribeWorkerDeploymentRequest,
    DescribeWorkerDeploymentResponse,
    DescribeWorkerDeploymentVersionRequest,
    SetWorkerDeploymentCurrentVersionRequest,
)
from temporalio.client import Client
from temporalio.common import WorkerDeploymentVersion
from temporalio.service import RPCError, RPCStatusCode

from schema.names import DEPLOYMENT, DEV_BUILD_ID, QUEUES
from services.setup_errors import SetupError

_log = structlog.get_logger(__name__)

_DEV_STARTS_WITHIN: Final = timedelta(seconds=45)
_RPC_TIMEOUT: Final = timedelta(seconds=10)
_PAUSE_S: Final = 0.25
_LOOK_S: Final = 3.0
_SETTLED_AFTER: Final = timedelta(seconds=10)
"""By then an API no longer starts turns eagerly on a version that was current, and a run whose
first task was handed out just before a promotion is counted."""

_PASSING: Final = (
    *(RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED),
    *(RPCStatusCode.RESOURCE_EXHAUSTED, RPCStatusCode.ABORTED, RPCStatusCode.CANCELLED),
)
_STATUS_PREFIX: Final = "WORKER_DEPLOYMENT_VERSION_STATUS_"


class DeploymentError(SetupError):
    """The deployment can't be read or changed."""


class NotReadyYetError(DeploymentError):
    """The version can't be promoted now, but perhaps soon."""


class NoBuildIdError(DeploymentError):
    """The version is not named."""

    def __init__(self) -> None:
        super().__init__("Which version? Set EVERTURN_BUILD_ID, or name it by --build-id.")


class Version(BaseModel):
    """A version of the workers.

    `open_runs` counts the runs that are pinned to it; `is_drained` says that none of them is left
    and none can come, so that its workers can be stopped.
    """

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)

    build_id: str
    status: str
    open_runs: int
    is_drained: bool

    def __str__(self) -> str:
        state = "drained, its workers can be stopped" if self.is_drained else self.status
        return f"Version {self.build_id}: {state}; {self.open_runs} open runs are pinned to it."


class DeploymentStatus(BaseModel):
    """The versions of the workers, newest first; without a current one, none gets work."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)

    deployment: str
    current: str | None
    versions: Sequence[Version]

    def __str__(self) -> str:
        current = self.current or "none. Workers with a version get no work: promote one"
        return "\n".join([f"Current version: {current}.", *map(str, self.versions)])


async def check_version(client: Client, build_id: str | None) -> None:
    """Log where a version gets no new work, since another is current or none.

    Errors: DeploymentError where Temporal knows nothing of versions.
    """
    if build_id is None:
        return
    try:
        current = await WorkerVersions(client).current()
    except NotReadyYetError as error:
        _log.warning("worker_version_not_checked", reason=str(error))
        return
    if build_id not in {current, DEV_BUILD_ID}:
        _log.warning(
            "worker_version_not_current",
            build_id=build_id,
            current=current,
            hint="New turns start here after `everturn deployment promote`.",
        )


async def promote_dev(client: Client, build_id: str | None) -> None:
    """Make the version of `everturn dev` current, once all of its workers poll.

    Errors: DeploymentError.
    """
    if build_id == DEV_BUILD_ID:
        await WorkerVersions(client).promote(build_id, within=_DEV_STARTS_WITHIN)


@asynccontextmanager
async def noting_whether_current(
    client: Client, build_id: str, note: Callable[[bool], None]
) -> AsyncIterator[None]:
    """Call `note` with whether a version is current, again and again while the block runs.

    An eager start goes to the worker beside it, whichever version is current: Temporal does not
    check that.
    """

    async def look() -> None:
        while True:
            try:
                note(await WorkerVersions(client).current() == build_id)
            except DeploymentError as error:
                _log.warning("worker_version_not_checked", reason=str(error))
            await asyncio.sleep(_LOOK_S)

    looking = asyncio.create_task(look())
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


class WorkerVersions:
    """Reads and changes which version of the workers gets new work.

    Errors: DeploymentError.
    """

    def __init__(self, client: Client, *, settled_after: timedelta = _SETTLED_AFTER) -> None:
        self._client = client
        self._settled_after = settled_after

    async def current(self) -> str | None:
        """Return the build id of the version that gets new work, None where there is none."""
        try:
            described = await self._describe()
        except RPCError as error:
            raise _explained(error) from error
        return None if described is None else _current(described)

    async def status(self) -> DeploymentStatus:
        """Return all versions; empty where no versioned worker has ever polled."""
        try:
            described = await self._describe()
            if described is None:
                return DeploymentStatus(deployment=DEPLOYMENT, current=None, versions=())
            versions = [
                await self._version(summary)
                for summary in described.worker_deployment_info.version_summaries
            ]
        except RPCError as error:
            raise _explained(error) from error
        return DeploymentStatus(
            deployment=DEPLOYMENT, current=_current(described), versions=tuple(versions)
        )

    async def drain(self, build_id: str, *, within: timedelta) -> Version:
        """Return a version as soon as it is drained, or as it is after this time.

        Errors: DeploymentError for an unknown version, too.
        """
        deadline = asyncio.get_running_loop().time() + within.total_seconds()
        while True:
            versions = (await self.status()).versions
            found = next((known for known in versions if known.build_id == build_id), None)
            if found is None:
                raise DeploymentError(f"Temporal knows no version {build_id} of the workers.")
            if found.is_drained or asyncio.get_running_loop().time() >= deadline:
                return found
            await asyncio.sleep(_PAUSE_S)

    async def promote(self, build_id: str, *, within: timedelta) -> str | None:
        """Make a version current as soon as its workers poll every queue; return the one before.

        Waits for workers, and for a Temporal that restarts.
        Idempotency: promoting the current version again changes nothing.
        """
        deadline = asyncio.get_running_loop().time() + within.total_seconds()
        while True:
            try:
                return await self._promote(build_id)
            except NotReadyYetError:
                if asyncio.get_running_loop().time() >= deadline:
                    raise
            await asyncio.sleep(_PAUSE_S)

    async def _promote(self, build_id: str) -> str | None:
        try:
            described = await self._describe()
            if described is None:
                raise NotReadyYetError(_no_workers(build_id))
            before = _current(described)
            if before == build_id:
                return before
            await self._require_pollers(build_id)
            await self._client.workflow_service.set_worker_deployment_current_version(
                SetWorkerDeploymentCurrentVersionRequest(
                    namespace=self._client.namespace,
                    deployment_name=DEPLOYMENT,
                    build_id=build_id,
                    conflict_token=described.conflict_token,
                    identity=self._client.identity,
                ),
                timeout=_RPC_TIMEOUT,
            )
        except RPCError as error:
            raise _explained(error) from error
        return before

    async def _require_pollers(self, build_id: str) -> None:
        """Errors: NotReadyYetError where no worker of the version polls one of the queues."""
        try:
            described = await self._client.workflow_service.describe_worker_deployment_version(
                DescribeWorkerDeploymentVersionRequest(
                    namespace=self._client.namespace,
                    deployment_version=WorkerDeploymentVersion(DEPLOYMENT, build_id)._to_proto(),  # noqa: SLF001 -- the SDK has no public way
                ),
                timeout=_RPC_TIMEOUT,
            )
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                raise NotReadyYetError(_no_workers(build_id)) from error
            raise
        missing = set(QUEUES) - {queue.name for queue in described.version_task_queues}
        if missing:
            raise NotReadyYetError(
                f"No worker of version {build_id} polls {', '.join(sorted(missing))} so far. "
                "Start its workers for all queues, or give them more time by --wait."
            )

    async def _describe(self) -> DescribeWorkerDeploymentResponse | None:
        try:
            return await self._client.workflow_service.describe_worker_deployment(
                DescribeWorkerDeploymentRequest(
                    namespace=self._client.namespace, deployment_name=DEPLOYMENT
                ),
                timeout=_RPC_TIMEOUT,
            )
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return None
            raise

    async def _version(self, summary: Any) -> Version:  # noqa: ANN401 -- a nested message of the API
        build_id = summary.deployment_version.build_id
        counted = await self._client.count_workflows(pinned_to(build_id), rpc_timeout=_RPC_TIMEOUT)
        status = WorkerDeploymentVersionStatus.Name(summary.status).removeprefix(_STATUS_PREFIX)
        is_retired = status in {"DRAINING", "DRAINED"} and self._has_settled(
            summary.last_deactivation_time
        )
        return Version(
            build_id=build_id,
            status=status.lower(),
            open_runs=counted.count,
            is_drained=is_retired and counted.count == 0,
        )

    def _has_settled(self, deactivated: Timestamp) -> bool:
        return datetime.now(UTC) - deactivated.ToDatetime(UTC) >= self._settled_after


def pinned_to(build_id: str) -> str:
    """Return the query for the open runs that only workers of this version go on with."""
    return (
        f"ExecutionStatus = 'Running' AND TemporalWorkflowVersioningBehavior = 'Pinned' "
        f"AND TemporalWorkerDeploymentVersion = '{DEPLOYMENT}:{build_id}'"
    )


def _current(described: DescribeWorkerDeploymentResponse) -> str | None:
    routing = described.worker_deployment_info.routing_config
    return routing.current_deployment_version.build_id or None


def _no_workers(build_id: str) -> str:
    return (
        f"No worker of version {build_id} has polled yet. Start workers with "
        f"EVERTURN_BUILD_ID={build_id}, or give them more time by --wait."
    )


def _explained(error: RPCError) -> DeploymentError:
    """Return what to do about an error of Temporal, as one line."""
    reason = f"{error.message.partition(chr(10))[0]} ({error.status.name})"
    if error.status is RPCStatusCode.UNIMPLEMENTED or "not enabled" in error.message:
        return DeploymentError(
            f"This Temporal server has no worker deployments: {reason}. Upgrade it to 1.28 or "
            "newer, or unset EVERTURN_BUILD_ID."
        )
    if error.status in _PASSING:
        return NotReadyYetError(
            f"Temporal is unavailable: {reason}. Repeat the command: it is safe to repeat."
        )
    if error.status is RPCStatusCode.FAILED_PRECONDITION:
        return NotReadyYetError(f"Temporal refuses the promotion: {reason}.")
    return DeploymentError(f"Temporal refused: {reason}.")
