"""The sweeper of a background worker, with a Temporal that remembers one run."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from temporalio.client import WorkflowExecutionStatus

from schema.names import REEMBED
from schema.sweeps import SweepPart
from services.settings import Settings
from workers.sweeper import Sweeper

FAILED_AT = datetime(2026, 1, 1, tzinfo=UTC)


class OneRun:
    """A Temporal whose last re-embedding ended like this; counts what is started."""

    def __init__(self, status: WorkflowExecutionStatus) -> None:
        self.started: list[str] = []
        self.memos: list[object] = []
        self._last = SimpleNamespace(status=status, close_time=FAILED_AT)

    def get_workflow_handle(self, _: str) -> "OneRun":
        return self

    async def describe(self, **_: object) -> SimpleNamespace:
        return self._last

    async def start_workflow(self, name: str, *_: object, **options: object) -> None:
        self.started.append(name)
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
