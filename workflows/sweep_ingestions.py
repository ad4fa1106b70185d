"""Owns the sweep of ingestions: it starts those that nobody started or whose workflow is gone."""

import asyncio
from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities import names
    from schema.ingestion import IngestionSweepOutcome, StrandedIngestions
    from schema.names import SWEEP_INGESTIONS
    from workflows.ingest_document import start_ingestion
    from workflows.retries import ONCE


@workflow.defn(name=SWEEP_INGESTIONS)
class SweepIngestions:
    """One sweep. What fails is left to the next one."""

    @workflow.run
    async def run(self) -> IngestionSweepOutcome:
        """Find stranded ingestions and start them."""
        stranded = await workflow.execute_activity(
            names.FIND_STRANDED_INGESTIONS,
            result_type=StrandedIngestions,
            start_to_close_timeout=timedelta(minutes=2),
            heartbeat_timeout=timedelta(seconds=20),
            retry_policy=ONCE,
        )
        await asyncio.gather(*map(start_ingestion, stranded.to_start))
        return IngestionSweepOutcome(started=len(stranded.to_start))
