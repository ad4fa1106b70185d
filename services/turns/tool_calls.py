"""Owns running one tool call: its result is stored before it is reported, and found again."""

import asyncio
from typing import Final

import structlog
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import acting_user
from schema.tables import ToolCallRow
from schema.tables.columns import utc_now
from schema.turns import RunToolInput, RunToolOutput, ToolCallStatus
from schema.wire import make_storable
from services.database import Database
from services.events.snapshots import tool_call_event
from services.events.writer import EventWriter
from services.tools.definition import ToolOutcome
from services.tools.registry import ToolRegistry

_log = structlog.get_logger(__name__)

_ATTEMPTS: Final = 3
_FINAL: Final = frozenset({ToolCallStatus.COMPLETED, ToolCallStatus.FAILED, ToolCallStatus.DENIED})


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
        row = await self._begin(call)
        if ToolCallStatus(row.status) in _FINAL:
            return RunToolOutput(status=ToolCallStatus(row.status))
        await self._tell(call, row)
        outcome = await self._outcome(row)
        row = await self._store(call, outcome)
        await self._tell(call, row)
        return RunToolOutput(status=ToolCallStatus(row.status))

    async def _begin(self, call: RunToolInput) -> ToolCallRow:
        async with self._database.transaction(acting_user(call.turn.user_id)) as session:
            row = await _row(session, call)
            if ToolCallStatus(row.status) not in _FINAL:
                row.status = ToolCallStatus.RUNNING
                row.attempts += 1
                row.started_at = row.started_at or utc_now()
                await session.flush()
        return row

    async def _outcome(self, row: ToolCallRow) -> ToolOutcome:
        tool = self._tools.get(row.name)
        timeout_s = None if tool is None else tool.definition.timeout.total_seconds()
        try:
            async with asyncio.timeout(timeout_s):
                return await self._tools.run(row.name, row.input)
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
        async with self._database.transaction(acting_user(call.turn.user_id)) as session:
            row = await _row(session, call)
            if ToolCallStatus(row.status) not in _FINAL:
                failed = outcome.is_error
                row.status = ToolCallStatus.FAILED if failed else ToolCallStatus.COMPLETED
                row.output = make_storable(outcome.output)
                row.finished_at = utc_now()
                await session.flush()
        return row

    async def _tell(self, call: RunToolInput, row: ToolCallRow) -> None:
        await self._events.append(call.turn.turn_id, [tool_call_event(row)])


async def _row(session: AsyncSession, call: RunToolInput) -> ToolCallRow:
    key = (call.turn.turn_id, call.step, call.tool_call_id)
    return await session.get_one(ToolCallRow, key, with_for_update=True)
