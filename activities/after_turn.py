"""Works after turns: the activity that does what is due, a batch at a time.

A work that fails is tried again later by itself, and holds up no other.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import names
from activities.failures import OUTAGES, ReportDefect, note_defect, note_outage, type_of
from activities.heartbeats import heartbeats
from schema.after_turn import BatchOutcome, NotDone, WorkInput, WorkOutcome
from schema.names import Work
from schema.turns import TurnReference
from services.compaction import Compaction
from services.database import ActorGoneError
from services.due_works import (
    MOST_FAILURES,
    Batch,
    Done,
    DueWork,
    DueWorks,
    Ended,
    Postponed,
    WaitingWorks,
)
from services.memory_extraction.service import MemoryExtraction
from services.models.failures import ModelCallError
from services.shielding import DefectError
from services.titles import ChatTitles

_log = structlog.get_logger(__name__)

_LONGEST_ATTEMPT_S: Final = 600.0
_LONGEST_BATCH_S: Final = 3600.0
"""One that is always busy ends with its next pause, so that its run shows what it did."""

Do = Callable[[TurnReference], Awaitable[WorkOutcome]]


class _Service(NamedTuple):
    """How a work is done, and how what was left open by its last attempt is settled."""

    attempt: Do
    give_up: Do


class AfterTurnActivities:
    """What the workflow `WorkBatch` does outside itself; and `AfterTurn`, of earlier versions."""

    def __init__(
        self,
        works: DueWorks,
        *,
        extraction: MemoryExtraction,
        titles: ChatTitles,
        compaction: Compaction,
        report: ReportDefect,
    ) -> None:
        self._works = works
        self._report = report
        self._services = {
            Work.EXTRACT_MEMORIES: _Service(extraction.extract, extraction.give_up),
            Work.TITLE_CHAT: _Service(titles.title, titles.give_up),
            Work.COMPACT_CHAT: _Service(compaction.compact, compaction.give_up),
        }

    async def waiting(self) -> list[WaitingWorks]:
        """Return which works wait; no activity. Errors: DatabaseUnavailableError."""
        return await self._works.waiting()

    @activity.defn(name=names.DO_WORKS)
    async def do_works(self) -> BatchOutcome:
        """Do what is due until nothing is, or this worker shuts down.

        Idempotency: that of the works; what a process that died has claimed is due again soon.
        """
        earlier = activity.info().heartbeat_details
        before = BatchOutcome.model_validate(earlier[0]) if earlier else BatchOutcome()
        batch = Batch(self._works, self.attempt, before)
        clock = asyncio.get_running_loop().time
        until = clock() + _LONGEST_BATCH_S
        async with heartbeats(lambda: batch.outcome):
            await batch.run(is_ending=lambda: activity.is_worker_shutdown() or clock() > until)
        return batch.outcome

    @activity.defn(name=Work.EXTRACT_MEMORIES)
    async def extract_memories(self, asked: WorkInput) -> WorkOutcome:
        """Store what a turn suggests to remember, for a run of the release before."""
        return await _do_of_before(asked, self._services[Work.EXTRACT_MEMORIES])

    @activity.defn(name=Work.TITLE_CHAT)
    async def title_chat(self, asked: WorkInput) -> WorkOutcome:
        """Give the chat a title, for a run of the release before."""
        return await _do_of_before(asked, self._services[Work.TITLE_CHAT])

    @activity.defn(name=Work.COMPACT_CHAT)
    async def compact_chat(self, asked: WorkInput) -> WorkOutcome:
        """Summarise the older part of the turn's branch, for a run of the release before."""
        return await _do_of_before(asked, self._services[Work.COMPACT_CHAT])

    async def attempt(self, due: DueWork) -> Ended:
        """Try a work once; after its last attempt, leave nothing open."""
        ids = {"turn_id": str(due.turn.turn_id), "user_id": str(due.turn.user_id)}
        structlog.contextvars.bind_contextvars(work=due.work.value, **ids)
        service = self._services[due.work]
        if due.is_lost:
            return Done(WorkOutcome(problem=NotDone.GAVE_UP), NotDone.GAVE_UP.value)
        if due.is_hopeless:
            return await self._attempt(due, service.give_up, failure=NotDone.GAVE_UP.value)
        ended = await self._attempt(due, service.attempt)
        if isinstance(ended, Postponed) and ended.is_final:
            return await self._attempt(due, service.give_up, failure=ended.failure)
        return ended

    async def _attempt(self, due: DueWork, do: Do, *, failure: str | None = None) -> Ended:
        try:
            async with asyncio.timeout(_LONGEST_ATTEMPT_S):
                return Done(await do(due.turn), failure)
        except ActorGoneError:
            return Done(WorkOutcome(problem=NotDone.GONE))
        except ModelCallError as error:
            _log.warning("background_call_failed", final=error.exhausted, reason=str(error))
            return Postponed(error.kind.value, error.retry_after, is_final=error.exhausted)
        except OUTAGES as error:
            note_outage(error)
            return Postponed(type(error).__name__)
        except Exception as error:  # noqa: BLE001 -- it must not end the batch
            is_final = due.failures + 1 >= MOST_FAILURES
            if isinstance(error, DefectError):
                is_final = error.exhausted
            report = self._report if is_final else None
            await note_defect(due.work.value, error, is_final=is_final, report=report)
            return Postponed(type_of(error), is_defect=True, is_final=is_final)


async def _do_of_before(asked: WorkInput, service: _Service) -> WorkOutcome:
    """Do one work as an activity: the release after this one deletes it, with `AfterTurn`.

    Errors: ApplicationError `ModelFailed`, final once no attempt is left; others are retried.
    """
    if asked.gave_up:
        return await service.give_up(asked.turn)
    async with heartbeats():
        try:
            return await service.attempt(asked.turn)
        except ModelCallError as error:
            raise ApplicationError(
                f"Model call failed: {error.kind.value}",
                type=names.MODEL_FAILED,
                non_retryable=error.exhausted,
                next_retry_delay=None if error.exhausted else error.retry_after,
            ) from None
