"""Runs one tool call: its result is stored before it is reported, and reused after a crash.

ToolCallGoneError     the tool call was deleted, with its turn
ToolPostponedError    the tool did not answer; the same call should be repeated
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self

import asyncpg
import structlog

from schema.actors import acting_user
from schema.events import ToolCallProgress
from schema.ids import FileId, TurnId, UserId
from schema.result import Err
from schema.tables import ToolCallRow
from schema.tools import ToolDefinition, ToolKind
from schema.turns import RunToolInput, RunToolOutput, ToolCallDecision, ToolCallStatus, TurnStatus
from services.database import Connection, Database
from services.events.snapshots import tool_call_event
from services.events.writer import EventWriter, turn_news
from services.files.attaching import attach_to_call
from services.files.tool_images import ToolImages
from services.metrics import count_tool_call
from services.shielding import shielded, until_stored
from services.tools.definition import ToolExecution, ToolOutcome, ToolProgress, execution_key
from services.tools.executor import AnswersLater, ToolExecutor
from services.turns import tool_call_statements as sql
from services.turns.rows import tool_call_row
from services.turns.tool_attempts import (
    OUTCOME_UNKNOWN,
    ToolAttempts,
    ToolPostponedError,
    failed,
    is_once,
)

_log = structlog.get_logger(__name__)

_PAUSE_S: Final = 0.5


class ProgressReporter:
    """Takes any number of reports, and publishes the newest at most twice a second."""

    def __init__(self, publish: Callable[[ToolProgress], Awaitable[None]]) -> None:
        self._publish = publish
        self._newest: ToolProgress | None = None
        self._publishing: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        """Begin to take reports."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Publish nothing more: the call's end follows."""
        if self._publishing is not None:
            self._publishing.cancel()

    def report(self, progress: ToolProgress) -> None:
        """Take a report; returns at once."""
        self._newest = progress
        if self._publishing is None or self._publishing.done():
            self._publishing = asyncio.create_task(self._publish_newest())

    async def _publish_newest(self) -> None:
        while self._newest is not None:
            newest, self._newest = self._newest, None
            await self._publish(newest)
            await asyncio.sleep(_PAUSE_S)


_EXPIRED: Final = "This call was not approved in time, so it was not run."
_DENIED: Final = "The user denied this call, so it was not run."
_GAVE_UP: Final = "The call was not completed."
_WAITING: Final = ToolProgress(0.0, message="The tool's server is unavailable. Waiting for it.")
_NOT_STORED: Final = "The tool ran, but its result can't be used."


class ToolCallGoneError(Exception):
    """The tool call was deleted, with its turn."""

    def __init__(self) -> None:
        super().__init__("The tool call was deleted.")


class ToolCalls:
    """Runs the tool calls that a model asked for. Errors: DatabaseUnavailableError."""

    def __init__(
        self,
        database: Database,
        events: EventWriter,
        executor: ToolExecutor,
        attempts: ToolAttempts,
        *,
        images: ToolImages,
    ) -> None:
        self._database = database
        self._events = events
        self._executor = executor
        self._attempts = attempts
        self._images = images

    async def run(self, call: RunToolInput) -> RunToolOutput:
        """Run the call and store its outcome; an outcome stored before is returned again.

        Errors: ToolPostponedError; ToolCallGoneError; what a tool raises is a bug, and propagates
        until the attempts are used up.
        Idempotency: a tool that is to run at most once is not run where it may have been.
        """
        begun = await self._begin(call)
        row = tool_call_row(begun)
        if ToolCallStatus(row.status).is_final:
            # The execution that stored it may have died before publishing it.
            await self._publish_end(call, row)
            return RunToolOutput(status=ToolCallStatus(row.status))
        refusal = _refused(call, row)
        if refusal is not None:
            return await self._store(call, refusal, denied=not call.gave_up)
        await self._publish(call, row)
        if row.callback_id is not None and row.callback_until is not None:
            # An earlier execution died after the tool had accepted the call.
            outcome: ToolOutcome | AnswersLater = AnswersLater(row.callback_id)
        else:
            outcome = await self._outcome(call, begun, row)
        if isinstance(outcome, AnswersLater):
            return await self._await_callback(call, outcome, row)
        return await self._store(call, outcome)

    async def _outcome(
        self, call: RunToolInput, begun: asyncpg.Record, row: ToolCallRow
    ) -> ToolOutcome | AnswersLater:
        schema = begun["offered_schema"]
        if begun["has_offers"] and schema is None and await self._executor.find(row.name):
            return failed(f"The tool `{row.name}` is not available in this turn.")
        tool_input = row.input if row.edited_input is None else row.edited_input
        with ProgressReporter(lambda progress: self._publish(call, row, progress)) as reporter:
            execution = _execution_of(call, row, reporter, elapsed_s=begun["elapsed_s"])
            ready = await self._executor.ready(row.name, tool_input, execution, schema=schema)
            if isinstance(ready, Err):
                return ready.error
            if is_once(ready.value) and not await self._send(call):
                # A call that was sent may still be answered by callback.
                later = row.callback_id
                return failed(OUTCOME_UNKNOWN) if later is None else AnswersLater(later)
            return await self._attempt(call, ready.value, tool_input, execution, row=row)

    async def _attempt(
        self,
        call: RunToolInput,
        tool: ToolDefinition,
        tool_input: dict[str, Any],
        execution: ToolExecution,
        *,
        row: ToolCallRow,
    ) -> ToolOutcome | AnswersLater:
        try:
            return await self._attempts.run(tool, tool_input, execution)
        except ToolPostponedError:
            if is_once(tool):
                # Otherwise a call that was never sent would count as one that may have been.
                await shielded(until_stored(lambda: self._unsend(call, execution)))
            if tool.kind is not ToolKind.LOCAL:
                await self._publish(call, row, _WAITING)
            raise

    async def _begin(self, call: RunToolInput) -> asyncpg.Record:
        """Begin the call unless it has ended; return it as it is then."""
        async with self._database.statements(acting_user(call.turn.user_id)) as connection:
            begun = await connection.fetchrow(sql.BEGIN, *_key(call))
            if begun is None:
                return await _stored(connection, call)
            resumed = "UPDATE 0"
            if begun["approval"] == "ask":
                resumed = await connection.execute(sql.RESUME, call.turn.turn_id)
        await self._announce_resumed(call, resumed)
        return begun

    async def _announce_resumed(self, call: RunToolInput, resumed: str) -> None:
        """Let the user's devices hear that the turn runs again, if no other call awaits them."""
        if resumed != "UPDATE 0":
            await self._events.announce(turn_news(call.turn, TurnStatus.RUNNING))

    async def _send(self, call: RunToolInput) -> bool:
        """Mark a call that runs at most once as sent; False if it was before."""
        async with self._database.statements(acting_user(call.turn.user_id)) as connection:
            return await connection.fetchval(sql.SEND, *_key(call)) is not None

    async def _unsend(self, call: RunToolInput, execution: ToolExecution) -> None:
        """Undo the mark, unless another execution has found it in the meantime."""
        async with self._database.statements(acting_user(call.turn.user_id)) as connection:
            await connection.execute(sql.NOT_SENT, *_key(call), execution.attempt)

    async def _await_callback(
        self, call: RunToolInput, later: AnswersLater, row: ToolCallRow
    ) -> RunToolOutput:
        tool = await self._executor.find(row.name)
        timeout_s = 0.0 if tool is None else tool.timeout.total_seconds()
        values = (*_key(call), later.callback_id, timeout_s)
        async with self._database.statements(acting_user(call.turn.user_id)) as connection:
            found = await connection.fetchrow(sql.AWAIT_CALLBACK, *values)
            if found is None:
                # The answer arrived before the tool had accepted the call.
                row = tool_call_row(await _stored(connection, call))
                return RunToolOutput(status=ToolCallStatus(row.status))
        return RunToolOutput(
            status=ToolCallStatus.RUNNING, answers_within_s=max(found["within_s"], 0.0)
        )

    async def _store(
        self, call: RunToolInput, outcome: ToolOutcome, *, denied: bool = False
    ) -> RunToolOutput:
        """Store the outcome, however long that takes: it exists nowhere else."""
        return await shielded(self._store_somehow(call, outcome, denied=denied))

    async def _store_somehow(
        self, call: RunToolInput, outcome: ToolOutcome, *, denied: bool
    ) -> RunToolOutput:
        """Store the outcome; the tool is not run again for one that can't be stored."""
        actor = acting_user(call.turn.user_id)
        try:
            outcome, images = await until_stored(
                lambda: self._images.keep(actor, outcome, tool=call.name)
            )
            row = await until_stored(lambda: self._store_once(call, outcome, images, denied=denied))
        except ToolCallGoneError:
            raise
        except Exception:  # noqa: BLE001 -- whatever it is, the tool has run
            _log.exception("tool_result_not_stored", turn_id=str(call.turn.turn_id))
            unusable = failed(_NOT_STORED, cost_usd=outcome.cost_usd)
            row = await until_stored(lambda: self._store_once(call, unusable, {}, denied=denied))
        await self._publish_end(call, row)
        return RunToolOutput(status=ToolCallStatus(row.status))

    async def _store_once(
        self,
        call: RunToolInput,
        outcome: ToolOutcome,
        images: Mapping[int, FileId],
        *,
        denied: bool,
    ) -> ToolCallRow:
        status = ToolCallStatus.FAILED if outcome.is_error else ToolCallStatus.COMPLETED
        if denied:
            status = ToolCallStatus.DENIED
        async with self._database.statements(acting_user(call.turn.user_id)) as connection:
            found = await connection.fetchrow(
                sql.STORE,
                *_key(call),
                status.value,
                outcome.output,
                list(outcome.blocks) or None,
                outcome.cost_usd or 0,
            )
            row = tool_call_row(found or await _stored(connection, call))
            if found is not None and images:
                turn_id, step, tool_call_id = _key(call)
                await attach_to_call(
                    connection, images, turn_id=turn_id, step=step, tool_call_id=tool_call_id
                )
            resumed = "UPDATE 0"
            if denied:
                resumed = await connection.execute(sql.RESUME, call.turn.turn_id)
        await self._announce_resumed(call, resumed)
        if found is not None:
            count_tool_call(row, tool=call.name)
        return row

    async def _publish_end(self, call: RunToolInput, row: ToolCallRow) -> None:
        """Publish the outcome; an event that can't be made must not undo what is stored."""
        try:
            await self._events.append_end_of_call(call.turn.turn_id, tool_call_event(row))
        except Exception:
            if not call.gave_up:
                raise
            _log.exception("tool_call_not_published", turn_id=str(call.turn.turn_id))

    async def _publish(
        self, call: RunToolInput, row: ToolCallRow, progress: ToolProgress | None = None
    ) -> None:
        event = tool_call_event(row)
        if progress is not None:
            reported = ToolCallProgress(
                progress=progress.progress, total=progress.total, message=progress.message
            )
            event = event.model_copy(update={"progress": reported})
        await self._events.append(call.turn.turn_id, [event])


async def _stored(connection: Connection, call: RunToolInput) -> asyncpg.Record:
    row = await connection.fetchrow(sql.READ, *_key(call))
    if row is None:
        raise ToolCallGoneError
    return row


def _key(call: RunToolInput) -> tuple[TurnId, int, str]:
    return call.turn.turn_id, call.step, call.tool_call_id


def _execution_of(
    call: RunToolInput, row: ToolCallRow, reporter: ProgressReporter, *, elapsed_s: float
) -> ToolExecution:
    return ToolExecution(
        actor=acting_user(UserId(row.user_id)),
        key=execution_key(row.turn_id, row.step, row.tool_call_id),
        attempt=row.attempts,
        elapsed=timedelta(seconds=elapsed_s),
        chat_id=call.turn.chat_id,
        turn_id=call.turn.turn_id,
        step=row.step,
        tool_call_id=row.tool_call_id,
        report=reporter.report,
    )


def _refused(call: RunToolInput, row: ToolCallRow) -> ToolOutcome | None:
    """Return the outcome of a call that is not to be made, or None."""
    if call.gave_up:
        may_have_run = row.sent_at is not None or row.callback_until is not None
        return failed(f"{_GAVE_UP} {OUTCOME_UNKNOWN}" if may_have_run else _GAVE_UP)
    match row.decision:
        case ToolCallDecision.DENIED:
            reason = f" Reason: {row.decision_reason}" if row.decision_reason else ""
            return failed(f"{_DENIED}{reason}")
        case ToolCallDecision.EXPIRED:
            return failed(_EXPIRED)
        case _:
            return None
