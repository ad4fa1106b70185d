"""Owns trying tools: an administrator's input, run by a worker, and what the tool made of it.

The input is kept in the database, where Temporal's histories don't have it.
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
from schema.tables import ToolTestRow
from schema.tables.columns import utc_now
from schema.tools import TestToolRequest, ToolTest, ToolTrialReference
from services.audit.recording import record
from services.database import Database
from services.resources import Unreachable
from services.tools.catalogue import ToolCatalogue
from services.tools.definition import ToolExecution, ToolOutcome, ToolUnavailableError
from services.tools.executor import AnswersLater, ToolExecutor
from services.tools.rows import tool_test_from_row

_log = structlog.get_logger(__name__)

_LONGEST: Final = timedelta(seconds=30)
_KEPT: Final = timedelta(days=1)
_LATER: Final = "It took the call, and would answer later. A trial does not wait for that."


class ToolTrials:
    """Keeps trials of tools. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, catalogue: ToolCatalogue) -> None:
        self._database = database
        self._catalogue = catalogue

    async def begin(
        self, actor: Actor, name: str, request: TestToolRequest
    ) -> Result[ToolTrialReference, Unreachable]:
        """Keep an input for a tool, switched off or not; old trials are dropped."""
        tool = (await self._catalogue.current()).find(name)
        if tool is None:
            return Err(Unreachable.MISSING)
        trial_id = new_id()
        old = delete(ToolTestRow).where(col(ToolTestRow.created_at) < utc_now() - _KEPT)
        async with self._database.transaction(actor) as session:
            await session.exec(old)
            session.add(
                ToolTestRow(id=trial_id, tool=name, input=request.input, user_id=actor.user_id)
            )
            record(session, actor, AuditAction.TOOL_TESTED, (ResourceType.TOOL, name))
        limit = min(_LONGEST, tool.timeout)
        return Ok(ToolTrialReference(trial_id=trial_id, tool=name, within_s=limit.total_seconds()))

    async def outcome(self, actor: Actor, trial: ToolTrialReference) -> ToolTest | None:
        """Return what came of a trial, or None while nothing has."""
        async with self._database.transaction(actor) as session:
            row = await session.get(ToolTestRow, trial.trial_id)
        return None if row is None else tool_test_from_row(row)


class ToolTrialRuns:
    """Runs trials, in a worker. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, executor: ToolExecutor) -> None:
        self._database = database
        self._executor = executor

    async def run(self, trial: ToolTrialReference) -> None:
        """Run the tool once and keep its outcome; whatever it does wrong is one."""
        # A worker does this in nobody's name: users can't see trials.
        async with self._database.transaction(SERVICE) as session:
            row = await session.get(ToolTestRow, trial.trial_id)
        if row is None or row.output is not None:
            return
        started = time.monotonic()
        outcome = await self._outcome(row, trial)
        await self._keep(trial.trial_id, outcome, seconds=time.monotonic() - started)

    async def _outcome(self, row: ToolTestRow, trial: ToolTrialReference) -> ToolOutcome:
        execution = ToolExecution(
            actor=acting_user(UserId(row.user_id)), key=f"trial:{trial.trial_id}"
        )
        ready = await self._executor.ready(row.tool, row.input, execution)
        if isinstance(ready, Err):
            return ready.error
        limit = timedelta(seconds=trial.within_s)
        tool = ready.value.model_copy(update={"timeout": limit})
        try:
            outcome = await self._executor.run(tool, row.input, execution)
        except TimeoutError:
            return _error(f"It did not answer within {trial.within_s:g} s.")
        except ToolUnavailableError as error:
            return _error(error.sentence)
        except Exception as error:  # noqa: BLE001 -- that a tool fails is what a trial finds out
            _log.warning("tool_trial_failed", tool=row.tool, exc_info=error)
            return _error(f"It failed: {type(error).__name__}.")
        return ToolOutcome(output=_LATER) if isinstance(outcome, AnswersLater) else outcome

    async def _keep(self, trial_id: UUID, outcome: ToolOutcome, *, seconds: float) -> None:
        async with self._database.transaction(SERVICE) as session:
            row = await session.get(ToolTestRow, trial_id, with_for_update=True)
            if row is not None:
                row.output, row.is_error = outcome.output, outcome.is_error
                row.duration_ms = round(seconds * 1000)


def _error(words: str) -> ToolOutcome:
    return ToolOutcome(output=words, is_error=True)
