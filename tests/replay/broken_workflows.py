"""Copies of workflows, each with a change that a running workflow could not follow."""

from datetime import timedelta
from decimal import Decimal

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities import names
    from schema.ingestion import DocumentVersionReference, IngestionProgress
    from schema.names import CHAT_TURN, INGEST_DOCUMENT
    from schema.turns import (
        CallModelInput,
        CallModelOutput,
        FinishTurnInput,
        FinishTurnOutput,
        TurnOutcome,
        TurnReference,
    )
    from schema.usage import TokenUsage
    from workflows.chat_turn import ChatTurn
    from workflows.ingest_document import IngestDocument


@workflow.defn(name=CHAT_TURN)
class PreparesApart(ChatTurn):
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
class CallsLocally(ChatTurn):
    """With a local activity where another was."""

    @workflow.run
    async def run(self, turn: TurnReference) -> TurnOutcome:
        return await super().run(turn)

    async def _ask(self, call: CallModelInput, *, corrects: bool) -> CallModelOutput:
        del corrects
        answer: CallModelOutput = await workflow.execute_local_activity(
            names.BEGIN_TURN,
            call,
            result_type=CallModelOutput,
            start_to_close_timeout=timedelta(minutes=15),
        )
        return answer


@workflow.defn(name=INGEST_DOCUMENT)
class EmbedsAtOnce(IngestDocument):
    """With the first batch before the text."""

    @workflow.run
    async def run(self, version: DocumentVersionReference) -> IngestionProgress:
        await self._embed(version, IngestionProgress(status=None))
        return await super().run(version)
