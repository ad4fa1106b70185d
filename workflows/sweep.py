"""The sweep: it picks up work whose workflow was never started or is gone.

Accepted work is started at once; the sweep is the safety net for what was accepted while Temporal
was unavailable. `workers/sweeper.py` starts it when there is work.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities import names
    from schema.errors import ErrorCode
    from schema.ingestion import IngestionSweepOutcome, StrandedIngestions
    from schema.names import SWEEP, TURNS_QUEUE
    from schema.sweeps import (
        ErasureOutcome,
        FileSweepOutcome,
        SweepInput,
        SweepOutput,
        SweepPart,
    )
    from schema.tool_callbacks import DeliveryOutcome
    from schema.turns import (
        FinishTurnInput,
        FinishTurnOutput,
        StrandedTurns,
        SweepOutcome,
        TurnReference,
        TurnStatus,
    )
    from workflows.chat_turn import start_turn
    from workflows.ingest_document import start_ingestion
    from workflows.retries import ONCE, QUICK


@workflow.defn(name=SWEEP)
class Sweep:
    """One sweep of the given parts, in parallel. What fails is left to the next sweep."""

    @workflow.run
    async def run(self, sweep: SweepInput) -> SweepOutput:
        """Handle the pending work of each part; a part that fails doesn't stop the others."""
        counts = await asyncio.gather(
            *(_PARTS[part]() for part in sweep.parts), return_exceptions=True
        )
        handled: dict[SweepPart, int] = {}
        for part, count in zip(sweep.parts, counts, strict=True):
            if isinstance(count, BaseException):
                raise count
            handled[part] = count
        workflow.set_current_details(", ".join(f"{n} {part.value}" for part, n in handled.items()))
        return SweepOutput(handled=handled)


async def sweep_turns() -> SweepOutcome:
    """Find stranded turns; start those without a workflow and close those whose workflow ended."""
    stranded = await workflow.execute_activity(
        names.FIND_STRANDED_TURNS,
        result_type=StrandedTurns,
        start_to_close_timeout=timedelta(minutes=2),
        heartbeat_timeout=timedelta(seconds=20),
        retry_policy=ONCE,
    )
    started = await _each(map(start_turn, stranded.to_start))
    _raise_first([*started, *await _each(map(_close_turn, stranded.to_close))])
    return SweepOutcome(started=len(stranded.to_start), closed=len(stranded.to_close))


async def _each(work: Iterable[Awaitable[None]]) -> list[BaseException | None]:
    """Return the failure of each, if it failed, when all are done."""
    return await asyncio.gather(*work, return_exceptions=True)


def _raise_first(failures: Iterable[BaseException | None]) -> None:
    for failure in failures:
        if failure is not None:
            raise failure


async def _close_turn(turn: TurnReference) -> None:
    """Close a turn; without its content, if that is what keeps it from ending."""
    ending = FinishTurnInput(
        turn=turn, status=TurnStatus.FAILED, error_code=ErrorCode.SERVICE_UNAVAILABLE
    )
    try:
        closed = await _finish(ending)
    except ActivityError as error:
        if not isinstance(error.cause, ApplicationError) or not error.cause.non_retryable:
            raise
        closed = await _finish(ending.model_copy(update={"bare": True}))
    if closed.following is not None:
        await start_turn(closed.following)


async def _finish(ending: FinishTurnInput) -> FinishTurnOutput:
    """End a turn; during an outage that is left to the next sweep."""
    finished: FinishTurnOutput = await workflow.execute_activity(
        names.FINISH_TURN,
        ending,
        result_type=FinishTurnOutput,
        task_queue=TURNS_QUEUE,
        schedule_to_close_timeout=timedelta(seconds=30),
        retry_policy=QUICK,
    )
    return finished


async def sweep_ingestions() -> IngestionSweepOutcome:
    """Find ingestions that have no running workflow, and start them."""
    stranded = await workflow.execute_activity(
        names.FIND_STRANDED_INGESTIONS,
        result_type=StrandedIngestions,
        start_to_close_timeout=timedelta(minutes=2),
        heartbeat_timeout=timedelta(seconds=20),
        retry_policy=ONCE,
    )
    _raise_first(await _each(map(start_ingestion, stranded.to_start)))
    return IngestionSweepOutcome(started=len(stranded.to_start))


async def sweep_erasures() -> ErasureOutcome:
    """Erase the streams of deleted turns."""
    outcome: ErasureOutcome = await workflow.execute_activity(
        names.ERASE_STREAMS,
        result_type=ErasureOutcome,
        start_to_close_timeout=timedelta(minutes=4),
        heartbeat_timeout=timedelta(seconds=30),
        retry_policy=ONCE,
    )
    return outcome


async def sweep_files() -> FileSweepOutcome:
    """Delete files that belong to nothing."""
    outcome: FileSweepOutcome = await workflow.execute_activity(
        names.SWEEP_FILES,
        result_type=FileSweepOutcome,
        start_to_close_timeout=timedelta(minutes=4),
        retry_policy=ONCE,
    )
    return outcome


async def deliver(activity: str) -> DeliveryOutcome:
    """Signal turns that still wait for a callback or a decision that is stored already."""
    outcome: DeliveryOutcome = await workflow.execute_activity(
        activity,
        result_type=DeliveryOutcome,
        start_to_close_timeout=timedelta(minutes=4),
        heartbeat_timeout=timedelta(seconds=30),
        retry_policy=ONCE,
    )
    return outcome


async def _turns() -> int:
    outcome = await sweep_turns()
    return outcome.started + outcome.closed


async def _ingestions() -> int:
    return (await sweep_ingestions()).started


async def _erasures() -> int:
    return (await sweep_erasures()).erased


async def _answers() -> int:
    return (await deliver(names.DELIVER_CALLBACKS)).delivered


async def _decisions() -> int:
    return (await deliver(names.TELL_DECISIONS)).delivered


async def _files() -> int:
    return (await sweep_files()).deleted


_PARTS: Final[Mapping[SweepPart, Callable[[], Awaitable[int]]]] = {
    SweepPart.TURNS: _turns,
    SweepPart.INGESTIONS: _ingestions,
    SweepPart.ERASURES: _erasures,
    SweepPart.ANSWERS: _answers,
    SweepPart.DECISIONS: _decisions,
    SweepPart.FILES: _files,
}
