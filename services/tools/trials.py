"""Trials of tools: a worker runs a tool once on an administrator's input.

The input is stored in the database, to keep it out of Temporal's histories.
The endpoint, the table and the audit action keep the older word `test`.
"""

import time
from datetime import timedelta
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import delete
from sqlmodel import col

from schema.actors import SERVICE, Actor, acting_user
from schema.audit import AuditAction, ResourceType
from schema.ids import UserId, new_id
from schema.result import Err, Ok, Result
from schema.tables import ToolTrialRow
from schema.tables.columns import utc_now
from schema.tools import ToolTrialReference, ToolTrialRequest, ToolTrialResult
from services.audit import record
from services.database import Database
from services.resources import Unreachable
from services.tools.catalogue import ToolCatalogue
from services.tools.definition import ToolExecution, ToolOutcome, ToolUnavailableError
from services.tools.executor import AnswersLater, ToolExecutor

_log = structlog.get_logger(__name__)

_LONGEST: Final = timedelta(seconds=30)
_KEPT: Final = timedelta(days=1)
_LATER: Final = "The tool accepted the call and will answer later. A trial doesn't wait for that."


class ToolTrials:
    """Stores trials and returns their outcomes. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, catalogue: ToolCatalogue) -> None:
        self._database = database
        self._catalogue = catalogue

    async def begin(
        self, actor: Actor, name: str, request: ToolTrialRequest
    ) -> Result[ToolTrialReference, Unreachable]:
        """Store an input for a tool, enabled or not; old trials are deleted."""
        tool = (await self._catalogue.current_snapshot()).find(name)
        if tool is None:
            return Err(Unreachable.MISSING)
        trial_id = new_id()
        old = delete(ToolTrialRow).where(col(ToolTrialRow.created_at) < utc_now() - _KEPT)
        async with self._database.transaction(actor) as session:
            await session.exec(old)
            session.add(
                ToolTrialRow(id=trial_id, tool=name, input=request.input, user_id=actor.user_id)
            )
            record(session, actor, AuditAction.TOOL_TESTED, (ResourceType.TOOL, name))
        limit = min(_LONGEST, tool.timeout)
        return Ok(ToolTrialReference(trial_id=trial_id, tool=name, within_s=limit.total_seconds()))

    async def outcome(self, actor: Actor, trial: ToolTrialReference) -> ToolTrialResult | None:
        """Return the outcome of a trial, or None if it has none yet."""
        async with self._database.transaction(actor) as session:
            row = await session.get(ToolTrialRow, trial.trial_id)
        if row is None or row.output is None:
            return None
        return ToolTrialResult.model_validate(row, from_attributes=True)


class ToolTrialRuns:
    """Runs trials, in a worker. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, executor: ToolExecutor) -> None:
        self._database = database
        self._executor = executor

    async def run(self, trial: ToolTrialReference) -> None:
        """Run the tool once and store its outcome; a failure is an outcome, too."""
        # As the service: users can't see trials.
        async with self._database.transaction(SERVICE) as session:
            row = await session.get(ToolTrialRow, trial.trial_id)
        if row is None or row.output is not None:
            return
        started = time.monotonic()
        outcome = await self._outcome(row, trial)
        await self._store(trial.trial_id, outcome, seconds=time.monotonic() - started)

    async def _outcome(self, row: ToolTrialRow, trial: ToolTrialReference) -> ToolOutcome:
        execution = ToolExecution(
            actor=acting_user(UserId(row.user_id)), key=f"trial:{trial.trial_id}"
        )
        limit = timedelta(seconds=trial.within_s)
        try:
            ready = await self._executor.ready(row.tool, row.input, execution)
            if isinstance(ready, Err):
                return ready.error
            tool = ready.value.model_copy(update={"timeout": limit})
            outcome = await self._executor.run(tool, row.input, execution)
        except TimeoutError:
            return _error(f"The tool did not answer within {trial.within_s:g} s.")
        except ToolUnavailableError as error:
            return _error(error.sentence)
        except Exception as error:  # noqa: BLE001 -- a trial reports any failure
            _log.warning("tool_trial_failed", tool=row.tool, exc_info=error)
            return _error(f"The tool failed: {type(error).__name__}.")
        return ToolOutcome(output=_LATER) if isinstance(outcome, AnswersLater) else outcome

    async def _store(self, trial_id: UUID, outcome: ToolOutcome, *, seconds: float) -> None:
        async with self._database.transaction(SERVICE) as session:
            row = await session.get(ToolTrialRow, trial_id, with_for_update=True)
            if row is not None:
                row.output, row.is_error = outcome.output, outcome.is_error
                row.duration_ms = round(seconds * 1000)


def _error(words: str) -> ToolOutcome:
    return ToolOutcome(output=words, is_error=True)
