"""Owns running one tool call: its result is stored before it is reported, and found again."""

import asyncio
from typing import Final

import asyncpg
import structlog

from schema.actors import acting_user
from schema.ids import TurnId, UserId
from schema.tables import ToolCallRow
from schema.turns import RunToolInput, RunToolOutput, ToolCallStatus
from schema.wire import make_storable
from services.database import Database
from services.events.snapshots import tool_call_event
from services.events.writer import EventWriter
from services.tools.definition import ToolExecution, ToolOutcome, execution_key
from services.tools.registry import ToolRegistry

_log = structlog.get_logger(__name__)

_ATTEMPTS: Final = 3
# What the model was offered is what it may call; a turn from before that was kept has all tools.
_BEGIN: Final = """
UPDATE tool_calls SET status = 'running', attempts = attempts + 1,
                      started_at = coalesce(started_at, now())
WHERE turn_id = $1 AND step = $2 AND tool_call_id = $3
  AND status NOT IN ('completed', 'failed', 'denied')
RETURNING *, coalesce(
    (SELECT layers -> 'offered' @> jsonb_build_array(jsonb_build_object('name', name))
     FROM turn_contexts WHERE turn_contexts.turn_id = tool_calls.turn_id), true) AS is_offered
"""

_STORE: Final = """
UPDATE tool_calls SET status = $4, output = $5, finished_at = now()
WHERE turn_id = $1 AND step = $2 AND tool_call_id = $3
  AND status NOT IN ('completed', 'failed', 'denied')
RETURNING *
"""

_READ: Final = "SELECT * FROM tool_calls WHERE turn_id = $1 AND step = $2 AND tool_call_id = $3"

_FINAL: Final = frozenset({ToolCallStatus.COMPLETED, ToolCallStatus.FAILED, ToolCallStatus.DENIED})


class ToolCallGoneError(Exception):
    """The tool call was deleted, with its turn."""

    def __init__(self) -> None:
        super().__init__("The tool call was deleted.")


class ToolCalls:
    """Runs the tool calls that a model asked for."""

    def __init__(self, database: Database, events: EventWriter, tools: ToolRegistry) -> None:
        self._database = database
        self._events = events
        self._tools = tools

    async def run(self, call: RunToolInput) -> RunToolOutput:
        """Run the call and store its outcome; an outcome stored before is returned again.

        Errors: DatabaseUnavailableError; what a tool raises is a bug or an outage, and propagates.
        """
        begun = await self._write(call, _BEGIN)
        row = _row_of(begun)
        if ToolCallStatus(row.status) in _FINAL:
            return RunToolOutput(status=ToolCallStatus(row.status))
        await self._tell(call, row)
        if begun.get("is_offered", True) or self._tools.get(row.name) is None:
            outcome = await self._outcome(row)
        else:
            outcome = ToolOutcome(output=f"There is no tool `{call.name}` here.", is_error=True)
        row = await self._store(call, outcome)
        await self._tell(call, row)
        return RunToolOutput(status=ToolCallStatus(row.status))

    async def _outcome(self, row: ToolCallRow) -> ToolOutcome:
        tool = self._tools.get(row.name)
        timeout_s = None if tool is None else tool.definition.timeout.total_seconds()
        try:
            async with asyncio.timeout(timeout_s):
                return await self._tools.run(row.name, row.input, _execution_of(row))
        except TimeoutError:
            _log.warning("tool_timed_out", turn_id=str(row.turn_id), step=row.step)
            return ToolOutcome(
                output=f"The tool did not answer within {timeout_s:g} s.", is_error=True
            )
        except Exception:
            if row.attempts < _ATTEMPTS:
                raise
            # A tool that keeps failing must not keep the turn from ending.
            _log.exception("tool_failed", turn_id=str(row.turn_id), step=row.step, tool=row.name)
            return ToolOutcome(output="The tool failed.", is_error=True)

    async def _store(self, call: RunToolInput, outcome: ToolOutcome) -> ToolCallRow:
        status = ToolCallStatus.FAILED if outcome.is_error else ToolCallStatus.COMPLETED
        stored = await self._write(call, _STORE, status.value, make_storable(outcome.output))
        return _row_of(stored)

    async def _write(self, call: RunToolInput, statement: str, *values: str) -> asyncpg.Record:
        """Write to the call unless it has ended; return it as it stands then."""
        key = (call.turn.turn_id, call.step, call.tool_call_id)
        async with self._database.statements(acting_user(call.turn.user_id)) as connection:
            row = await connection.fetchrow(statement, *key, *values)
            if row is None:
                row = await connection.fetchrow(_READ, *key)
        if row is None:
            raise ToolCallGoneError
        return row

    async def _tell(self, call: RunToolInput, row: ToolCallRow) -> None:
        await self._events.append(call.turn.turn_id, [tool_call_event(row)])


def _execution_of(row: ToolCallRow) -> ToolExecution:
    return ToolExecution(
        actor=acting_user(UserId(row.user_id)),
        key=execution_key(row.turn_id, row.step, row.tool_call_id),
        attempt=row.attempts,
        turn_id=TurnId(row.turn_id),
        step=row.step,
        tool_call_id=row.tool_call_id,
    )


def _row_of(found: asyncpg.Record) -> ToolCallRow:
    """Return the row that a statement found; what it said besides is left out."""
    return ToolCallRow(**{name: found[name] for name in ToolCallRow.model_fields})
