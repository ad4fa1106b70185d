"""The checks of a background worker, with a Temporal that remembers one run."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from schema.names import REEMBED, WORK_BATCH, Work
from schema.sweeps import SweepPart
from services.due_works import WaitingWorks
from services.settings import Settings
from workers.sweeper import Sweeper, WorkBatches

FAILED_AT = datetime(2026, 1, 1, tzinfo=UTC)


class OneRun:
    """A Temporal whose last re-embedding ended like this; counts what is started."""

    def __init__(self, status: WorkflowExecutionStatus) -> None:
        self.started: list[str] = []
        self.ids: list[object] = []
        self.memos: list[object] = []
        self._last = SimpleNamespace(status=status, close_time=FAILED_AT)

    def get_workflow_handle(self, _: str) -> "OneRun":
        return self

    async def describe(self, **_: object) -> SimpleNamespace:
        return self._last

    async def start_workflow(self, name: str, *_: object, **options: object) -> None:
        self.started.append(name)
        self.ids.append(options.get("id"))
        self.memos.append(options.get("memo"))


async def stale() -> bool:
    return True


@pytest.mark.parametrize(
    ("status", "later", "started"),
    [
        (WorkflowExecutionStatus.FAILED, timedelta(minutes=59), []),
        (WorkflowExecutionStatus.FAILED, timedelta(minutes=61), [REEMBED]),
        (WorkflowExecutionStatus.COMPLETED, timedelta(minutes=1), [REEMBED]),
    ],
)
async def test_a_reembedding_that_failed_is_started_again_an_hour_later(
    status: WorkflowExecutionStatus, later: timedelta, started: list[str]
) -> None:
    temporal = OneRun(status)
    sweeper = Sweeper(
        cast("Any", temporal),
        sweep=cast("Any", None),
        reembedding=cast("Any", SimpleNamespace(is_any_stale=stale)),
        mcp=cast("Any", None),
        alerts=cast("Any", None),
        mail=cast("Any", None),
        settings=Settings(_env_file=None),
        clock=(FAILED_AT + later).timestamp,
    )

    await sweeper._start_reembedding()

    assert temporal.started == started


async def due() -> tuple[SweepPart, ...]:
    return (SweepPart.TURNS,)


async def test_a_sweep_names_where_the_turns_that_it_starts_are_seen() -> None:
    temporal = OneRun(WorkflowExecutionStatus.COMPLETED)
    sweeper = Sweeper(
        cast("Any", temporal),
        sweep=cast("Any", SimpleNamespace(parts_due=due)),
        reembedding=cast("Any", None),
        mcp=cast("Any", None),
        alerts=cast("Any", None),
        mail=cast("Any", None),
        settings=Settings(_env_file=None, public_url="https://chat.example.com"),
    )

    await sweeper._start_sweep()

    assert temporal.memos == [{"adminView": "https://chat.example.com/api/v1/admin/turns"}]


class Works:
    """Works that are due after turns."""

    def __init__(self, *waiting: WaitingWorks) -> None:
        self._waiting = list(waiting)

    async def waiting(self) -> list[WaitingWorks]:
        return self._waiting


def batches(temporal: object, *waiting: WaitingWorks) -> WorkBatches:
    return WorkBatches(
        cast("Any", temporal), cast("Any", Works(*waiting)), settings=Settings(_env_file=None)
    )


@pytest.mark.parametrize(
    ("due", "started"), [((0, 0), 0), ((1, 0), 1), ((30, 2), 1), ((30, 3), 2), ((0, 9_000), 8)]
)
async def test_there_are_the_more_batches_the_more_works_are_due(
    due: tuple[int, int], started: int
) -> None:
    temporal = OneRun(WorkflowExecutionStatus.COMPLETED)
    titles, memories = due

    await batches(
        temporal,
        WaitingWorks(Work.TITLE_CHAT, titles, titles, 0.0),
        WaitingWorks(Work.EXTRACT_MEMORIES, memories + 500, memories, 0.0),
    ).check()

    assert temporal.started == [WORK_BATCH] * started
    assert len(set(temporal.ids)) == started


async def test_the_check_measures_what_waits_and_for_how_long() -> None:
    temporal = OneRun(WorkflowExecutionStatus.COMPLETED)

    await batches(temporal, WaitingWorks(Work.TITLE_CHAT, 3, 0, 41.5)).check()

    def sample(name: str, **labels: str) -> float | None:
        return REGISTRY.get_sample_value(name, labels)

    assert sample("everturn_works_waiting", work="title_chat") == 3
    assert sample("everturn_works_waiting", work="extract_memories") == 0
    assert sample("everturn_oldest_work_seconds") == 41.5


class Away(OneRun):
    """A Temporal that is unavailable until it is back."""

    is_back = False

    async def start_workflow(self, name: str, *arguments: object, **options: object) -> None:
        if not self.is_back:
            raise RPCError("away", RPCStatusCode.UNAVAILABLE, b"")
        await super().start_workflow(name, *arguments, **options)


async def test_what_is_due_while_temporal_is_unavailable_is_started_once_it_is_back() -> None:
    temporal = Away(WorkflowExecutionStatus.COMPLETED)
    checks = batches(temporal, WaitingWorks(Work.TITLE_CHAT, 1, 1, 0.0))

    with capture_logs() as logs:
        await checks.check()
        await checks.check()
        temporal.is_back = True
        await checks.check()

    assert [line["event"] for line in logs] == ["works_check_failed"]
    assert temporal.started == [WORK_BATCH]
