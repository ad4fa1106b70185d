"""Workflow types that nothing starts any more; `Sweep` took their place.

Runs that an earlier version started may still be open during an upgrade: each ends within its five
minutes. The release after this one deletes the types and their recorded histories.
"""

import asyncio

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities import names
    from schema.ingestion import IngestionSweepOutcome
    from schema.sweeps import ErasureOutcome
    from schema.tool_callbacks import DeliveryOutcome
    from schema.turns import SweepOutcome
    from workflows.sweep import deliver, sweep_erasures, sweep_ingestions, sweep_turns


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
