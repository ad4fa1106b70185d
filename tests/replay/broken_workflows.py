"""Copies of workflows, each with a change that a running workflow could not follow."""

from datetime import timedelta
from decimal import Decimal

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities import names
    from schema.ingestion import DocumentVersionReference, IngestionProgress
    from schema.names import CHAT_TURN, INGEST_DOCUMENT
    from schema.turns import (
        FinishTurnInput,
        FinishTurnOutput,
        PrepareTurnOutput,
        TurnOutcome,
        TurnReference,
    )
    from schema.usage import TokenUsage
    from workflows.chat_turn import ChatTurn
    from workflows.ingest_document import IngestDocument


@workflow.defn(name=CHAT_TURN)
class PreparesTwice(ChatTurn):
    """With one activity more than it had."""

    @workflow.run
    async def run(self, turn: TurnReference) -> TurnOutcome:
        await self._prepare(turn)
        return await super().run(turn)


@workflow.defn(name=CHAT_TURN)
class WaitsFirst(ChatTurn):
    """With a timer before everything."""

    @workflow.run
    async def run(self, turn: TurnReference) -> TurnOutcome:
        await workflow.sleep(1)
        return await super().run(turn)


@workflow.defn(name=CHAT_TURN)
class NeverFinishes(ChatTurn):
    """With one activity less than it had."""

    @workflow.run
    async def run(self, turn: TurnReference) -> TurnOutcome:
        return await super().run(turn)

    async def _finish(self, ending: FinishTurnInput) -> FinishTurnOutput:
        outcome = TurnOutcome(
            status=ending.status, steps=1, usage=TokenUsage(), cost_usd=Decimal(0)
        )
        return FinishTurnOutput(outcome=outcome)


@workflow.defn(name=CHAT_TURN)
class PreparesElsewhere(ChatTurn):
    """With an activity where a local one was."""

    @workflow.run
    async def run(self, turn: TurnReference) -> TurnOutcome:
        return await super().run(turn)

    async def _prepare(self, turn: TurnReference) -> PrepareTurnOutput:
        prepared: PrepareTurnOutput = await workflow.execute_activity(
            names.PREPARE_TURN,
            turn,
            result_type=PrepareTurnOutput,
            start_to_close_timeout=timedelta(seconds=30),
        )
        return prepared


@workflow.defn(name=INGEST_DOCUMENT)
class EmbedsAtOnce(IngestDocument):
    """With the first batch before the text."""

    @workflow.run
    async def run(self, version: DocumentVersionReference) -> IngestionProgress:
        await self._embed(version, IngestionProgress(status=None))
        return await super().run(version)
