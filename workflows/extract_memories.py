"""The extraction of memories from a completed turn: what its user said that is worth keeping."""

from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities import names
    from schema.memory_extraction import ExtractionOutcome, ExtractMemoriesInput
    from schema.names import EXTRACT_MEMORIES
    from schema.turns import TurnReference

_LONGEST: Final = timedelta(days=1)
"""How long outages are waited for; then the turn is old news."""

_PATIENT: Final = RetryPolicy(
    initial_interval=timedelta(seconds=2), maximum_interval=timedelta(minutes=2)
)


@workflow.defn(name=EXTRACT_MEMORIES)
class ExtractMemories:
    """One extraction. Carries references and counts only; suggestions stay in the database."""

    @workflow.run
    async def run(self, turn: TurnReference) -> ExtractionOutcome:
        """Learn from the turn; a provider that fails ends it quietly."""
        try:
            outcome = await _extract(ExtractMemoriesInput(turn=turn))
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            outcome = await _extract(ExtractMemoriesInput(turn=turn, gave_up=True))
            workflow.set_current_details(_details(outcome))
            cause = error.cause
            if isinstance(cause, ApplicationError) and cause.type != names.MODEL_FAILED:
                raise ApplicationError(
                    "The extraction failed", type=cause.type, non_retryable=True
                ) from error
        workflow.set_current_details(_details(outcome))
        return outcome


async def _extract(asked: ExtractMemoriesInput) -> ExtractionOutcome:
    outcome: ExtractionOutcome = await workflow.execute_activity(
        names.EXTRACT_MEMORIES,
        asked,
        result_type=ExtractionOutcome,
        summary="give up" if asked.gave_up else "extract memories",
        start_to_close_timeout=timedelta(minutes=10),
        heartbeat_timeout=timedelta(seconds=10),
        schedule_to_close_timeout=_LONGEST,
        retry_policy=_PATIENT,
    )
    return outcome


def _details(outcome: ExtractionOutcome) -> str:
    found = f"{outcome.suggestions} suggestion{'s' * (outcome.suggestions != 1)}"
    what = found if outcome.problem is None else outcome.problem.value
    # The ledger has ten decimals, most of which are zeros.
    return f"{what} · {outcome.cost_usd.normalize():f} USD"
