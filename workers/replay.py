"""`everturn replay`: whether this version's workflows can follow recorded and running histories.

Reads only. A workflow that can't follow the history of a run would keep that run from going on.
"""

import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import typer
from google.protobuf.json_format import ParseError
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter
from temporalio.runtime import Runtime, TelemetryConfig
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError, _Definition

from schema.names import QUEUES
from services.settings import Settings
from services.setup_errors import SetupError
from workers.composition.temporal import connect_temporal, make_data_converter
from workers.workflow_types import ALL_WORKFLOWS

_OURS: Final = "TaskQueue IN ({})".format(", ".join(f"'{queue}'" for queue in QUEUES))


@dataclass(frozen=True, slots=True)
class Replayed:
    """The replay of one history; `problem` is why it can't be followed."""

    workflow_id: str
    run_id: str
    workflow_type: str
    problem: str | None

    def __str__(self) -> str:
        state = "followed" if self.problem is None else f"can't be followed: {self.problem}"
        return f"{self.workflow_type} {self.workflow_id}: {state}"


class HistoryFileError(SetupError):
    """A file holds no history, or there is none to replay."""


class TemporalReadError(SetupError):
    """Temporal stopped answering while histories were read."""

    def __init__(self, error: RPCError) -> None:
        super().__init__(
            f"Temporal did not answer: {error.message} ({error.status.name}). Run this again."
        )


class HistoryReplays:
    """Replays histories with the workflows of this version, in the sandbox."""

    def __init__(
        self,
        *,
        workflows: Sequence[type] = ALL_WORKFLOWS,
        data_converter: DataConverter = pydantic_data_converter,
    ) -> None:
        self._replayer = Replayer(
            workflows=workflows, data_converter=data_converter, runtime=_quiet_runtime()
        )
        self._types = {_Definition.must_from_class(workflow).name for workflow in workflows}

    async def replay(self, history: WorkflowHistory) -> Replayed:
        """Return whether the workflow follows the history."""
        return Replayed(
            workflow_id=history.workflow_id,
            run_id=history.run_id,
            workflow_type=_workflow_type(history),
            problem=await self._problem(history),
        )

    async def _problem(self, history: WorkflowHistory) -> str | None:
        if _workflow_type(history) not in self._types:
            return "this version has no workflow of this type"
        with _without_logs():
            result = await self._replayer.replay_workflow(history, raise_on_replay_failure=False)
        return None if result.replay_failure is None else _reason(result.replay_failure)


async def replay_histories(
    settings: Settings,
    paths: Sequence[Path],
    *,
    live: int = 0,
    workflows: Sequence[type] = ALL_WORKFLOWS,
) -> None:
    """Replay files, and the newest `live` open and closed runs, with a line for each failure.

    Errors: SystemExit with code 1 where a history can't be followed; HistoryFileError and
    TemporalReadError where one can't be read.
    """
    replays = HistoryReplays(workflows=workflows, data_converter=make_data_converter(settings))
    failed, count = 0, 0
    for file in history_files(paths):
        count += 1
        failed += _report(await replays.replay(read_history(file)), source=str(file))
    if live:
        client = await connect_temporal(settings, lazy=False)
        replays = HistoryReplays(workflows=workflows, data_converter=client.data_converter)
        async for history in live_histories(client, live):
            count += 1
            failed += _report(await replays.replay(history), source=f"run {history.run_id}")
    if failed:
        typer.echo(f"{failed} of {count} histories can't be followed by this version.")
        raise SystemExit(1)
    typer.echo(f"All {count} histories can be followed by this version.")


def history_files(paths: Iterable[Path]) -> list[Path]:
    """Return the files themselves and all `*.json` below the folders.

    Errors: HistoryFileError where a path does not exist, or a folder is without any.
    """
    found: list[Path] = []
    for path in paths:
        files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
        if not files or not files[0].exists():
            raise HistoryFileError(f"No histories at {path}: expected a JSON file or a folder.")
        found += files
    return found


def read_history(file: Path) -> WorkflowHistory:
    """Return a history that `temporal workflow show --output json` or Everturn has recorded.

    Errors: HistoryFileError.
    """
    try:
        history = WorkflowHistory.from_json(file.stem, file.read_text())
    except (OSError, ValueError, ParseError, AttributeError, TypeError) as error:
        raise HistoryFileError(f"{file} is not a workflow history in JSON.") from error
    if not history.events or not _workflow_type(history):
        raise HistoryFileError(f"{file} is not a workflow history in JSON.")
    return history


async def live_histories(client: Client, limit: int) -> AsyncIterator[WorkflowHistory]:
    """Yield the histories of the newest open runs and of the newest closed ones, of our queues.

    Errors: TemporalReadError.
    """
    try:
        for status in ("= 'Running'", "!= 'Running'"):
            query = f"{_OURS} AND ExecutionStatus {status}"
            async for run in client.list_workflows(query, limit=limit):
                history = await history_of(client, run.id, run.run_id)
                if history is not None:
                    yield history
    except RPCError as error:
        raise TemporalReadError(error) from error


async def history_of(
    client: Client, workflow_id: str, run_id: str | None
) -> WorkflowHistory | None:
    """Return the history of a run, None where it has been deleted, or has not begun."""
    try:
        history = await client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None
        raise
    completed = EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
    return history if any(event.event_type == completed for event in history.events) else None


def _report(replayed: Replayed, *, source: str) -> bool:
    """Print a line where the history can't be followed, and return whether it was printed."""
    if replayed.problem is None:
        return False
    typer.echo(f"{replayed} ({source})")
    return True


def _workflow_type(history: WorkflowHistory) -> str:
    return history.events[0].workflow_execution_started_event_attributes.workflow_type.name


def _reason(failure: Exception) -> str:
    """Return the core of the SDK's message, without its nested data."""
    text = str(failure).partition("\n")[0]
    if not isinstance(failure, NondeterminismError):
        return text
    return text.partition("] ")[2] or text


@contextmanager
def _without_logs() -> Iterator[None]:
    """Keep the SDK from logging each failure, with its traceback."""
    logger = logging.getLogger("temporalio")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@cache
def _quiet_runtime() -> Runtime:
    """Return a runtime that does not log each failure itself."""
    return Runtime(telemetry=TelemetryConfig(logging=None))
