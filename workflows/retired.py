"""Workflow types that nothing starts any more; `Sweep` and `WorkBatch` took their place.

Runs that an earlier version started may still be open during an upgrade: sweeps end within their
five minutes, works after a turn within a day. The release after this one deletes the types and
their recorded histories.
"""

import asyncio
from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities import names
    from schema.after_turn import AfterTurnInput, WorkInput, WorkOutcome
    from schema.ingestion import IngestionSweepOutcome
    from schema.names import Work
    from schema.sweeps import ErasureOutcome
    from schema.tool_callbacks import DeliveryOutcome
    from schema.turns import SweepOutcome, TurnReference
    from workflows.sweep import deliver, sweep_erasures, sweep_ingestions, sweep_turns

_LONGEST: Final = timedelta(days=1)
"""How long outages are waited for; then the turn is old news."""

_PATIENT: Final = RetryPolicy(
    initial_interval=timedelta(seconds=2), maximum_interval=timedelta(minutes=2)
)


@workflow.defn(name="SweepTurns")
class SweepTurns:
    """The part `turns` of a sweep."""

    @workflow.run
    async def run(self) -> SweepOutcome:
        """Start and close stranded turns."""
        return await sweep_turns()


@workflow.defn(name="SweepIngestions")
class SweepIngestions:
    """The part `ingestions` of a sweep."""

    @workflow.run
    async def run(self) -> IngestionSweepOutcome:
        """Start stranded ingestions."""
        return await sweep_ingestions()


@workflow.defn(name="SweepErasures")
class SweepErasures:
    """The part `erasures` of a sweep."""

    @workflow.run
    async def run(self) -> ErasureOutcome:
        """Erase the streams of deleted turns."""
        return await sweep_erasures()


@workflow.defn(name="DeliverCallbacks")
class DeliverCallbacks:
    """The parts `answers` and `decisions` of a sweep."""

    @workflow.run
    async def run(self) -> DeliveryOutcome:
        """Signal the turns that still wait for a tool or for a person."""
        answers, decisions = await asyncio.gather(
            deliver(names.DELIVER_CALLBACKS), deliver(names.TELL_DECISIONS)
        )
        return DeliveryOutcome(delivered=answers.delivered + decisions.delivered)


@workflow.defn(name="AfterTurn")
class AfterTurn:
    """The works that are due after one turn. Carries references and counts only."""

    @workflow.run
    async def run(self, asked: AfterTurnInput) -> dict[Work, WorkOutcome]:
        """Do all works, each whatever becomes of the others; a provider that fails is no failure.

        Errors: ApplicationError of a defect, once the others are done.
        """
        details = _Details()
        # One that fails must not end the others, as it would in a task group.
        ended = await asyncio.gather(
            *(_do(work, asked.turn, details) for work in asked.works), return_exceptions=True
        )
        _raise_first(end for end in ended if isinstance(end, BaseException))
        return {
            work: end
            for work, end in zip(asked.works, ended, strict=True)
            if isinstance(end, WorkOutcome)
        }


@workflow.defn(name="ExtractMemories")
class ExtractMemories:
    """The extraction of memories alone."""

    @workflow.run
    async def run(self, turn: TurnReference) -> WorkOutcome:
        """Learn from the turn, as `AfterTurn` does."""
        return await _do(Work.EXTRACT_MEMORIES, turn, _Details())


class _Details:
    """What the Temporal UI shows of a run: how far each work is."""

    def __init__(self) -> None:
        self._works: dict[Work, str] = {}

    def show(self, work: Work, how_far: str) -> None:
        self._works[work] = how_far
        lines = (f"{_title(work)}: {how_far}" for work, how_far in self._works.items())
        workflow.set_current_details("\n\n".join(lines))


async def _do(work: Work, turn: TurnReference, details: _Details) -> WorkOutcome:
    """Do a work; where that fails in the end, leave nothing open.

    Errors: ApplicationError of a defect.
    """
    details.show(work, "running")
    try:
        outcome = await _attempt(work, WorkInput(turn=turn))
    except ActivityError as error:
        if is_cancelled_exception(error):
            raise
        outcome = await _attempt(work, WorkInput(turn=turn, gave_up=True))
        details.show(work, _summary(outcome))
        cause = error.cause
        if isinstance(cause, ApplicationError) and cause.type != names.MODEL_FAILED:
            raise ApplicationError(
                f"Failed: {_title(work)}", type=cause.type, non_retryable=True
            ) from error
    details.show(work, _summary(outcome))
    return outcome


async def _attempt(work: Work, asked: WorkInput) -> WorkOutcome:
    outcome: WorkOutcome = await workflow.execute_activity(
        work.value,
        asked,
        result_type=WorkOutcome,
        summary=f"give up: {_title(work)}" if asked.gave_up else _title(work),
        start_to_close_timeout=timedelta(minutes=10),
        heartbeat_timeout=timedelta(seconds=10),
        schedule_to_close_timeout=_LONGEST,
        retry_policy=_PATIENT,
    )
    return outcome


def _raise_first(errors: Iterable[BaseException]) -> None:
    for error in errors:
        raise error


def _title(work: Work) -> str:
    return work.value.replace("_", " ")


def _summary(outcome: WorkOutcome) -> str:
    what = f"{outcome.stored} stored" if outcome.problem is None else outcome.problem.value
    # The ledger has ten decimals, most of which are zeros.
    return f"{what} · {outcome.cost_usd.normalize():f} USD"
