"""Owns the sweep behind deletions: what could not be erased at once is erased here."""

from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities import names
    from schema.erasure import ErasureOutcome
    from schema.names import SWEEP_ERASURES
    from workflows.retries import ONCE


@workflow.defn(name=SWEEP_ERASURES)
class SweepErasures:
    """One sweep. What fails is left to the next one."""

    @workflow.run
    async def run(self) -> ErasureOutcome:
        """Erase the streams of turns that are deleted."""
        outcome: ErasureOutcome = await workflow.execute_activity(
            names.ERASE_STREAMS,
            result_type=ErasureOutcome,
            start_to_close_timeout=timedelta(minutes=4),
            heartbeat_timeout=timedelta(seconds=30),
            retry_policy=ONCE,
        )
        return outcome
