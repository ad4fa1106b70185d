"""Owns the sweep: it starts turns that nobody started, and closes those whose workflow is gone."""

import asyncio
from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities import names
    from schema.errors import ErrorCode
    from schema.names import SWEEP_TURNS, TURNS_QUEUE
    from schema.turns import (
        FinishTurnInput,
        FinishTurnOutput,
        StrandedTurns,
        SweepOutcome,
        TurnReference,
        TurnStatus,
    )
    from workflows.chat_turn import start_turn
    from workflows.retries import ONCE


@workflow.defn(name=SWEEP_TURNS)
class SweepTurns:
    """One sweep. What fails is left to the next one."""

    @workflow.run
    async def run(self) -> SweepOutcome:
        """Find stranded turns, start the ones and close the others."""
        stranded = await workflow.execute_activity(
            names.FIND_STRANDED_TURNS,
            result_type=StrandedTurns,
            start_to_close_timeout=timedelta(minutes=2),
            heartbeat_timeout=timedelta(seconds=20),
            retry_policy=ONCE,
        )
        await asyncio.gather(*map(start_turn, stranded.to_start))
        await asyncio.gather(*map(self._close, stranded.to_close))
        return SweepOutcome(started=len(stranded.to_start), closed=len(stranded.to_close))

    async def _close(self, turn: TurnReference) -> None:
        ending = FinishTurnInput(
            turn=turn, status=TurnStatus.FAILED, error_code=ErrorCode.SERVICE_UNAVAILABLE
        )
        closed = await workflow.execute_activity(
            names.FINISH_TURN,
            ending,
            result_type=FinishTurnOutput,
            task_queue=TURNS_QUEUE,
            start_to_close_timeout=timedelta(seconds=30),
            retry_policy=ONCE,
        )
        if closed.following is not None:
            await start_turn(closed.following)
