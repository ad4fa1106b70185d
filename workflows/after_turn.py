"""Works that are due after turns, none of which waits for them: memories, titles, summaries.

They wait in a table (`services/due_works.py`), and `workers/sweeper.py` starts a batch when one is
due. What a batch costs the engine does not depend on how many works it does.
"""

from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities import names
    from schema.after_turn import BatchOutcome
    from schema.names import WORK_BATCH
    from workflows.retries import UNHURRIED


@workflow.defn(name=WORK_BATCH)
class WorkBatch:
    """What is due after turns, of all users, until nothing is. Carries counts only."""

    @workflow.run
    async def run(self) -> BatchOutcome:
        """Do what is due. What fails is due again later, and after its last attempt is given up."""
        outcome: BatchOutcome = await workflow.execute_activity(
            names.DO_WORKS,
            result_type=BatchOutcome,
            summary="works after turns",
            start_to_close_timeout=timedelta(hours=2),
            heartbeat_timeout=timedelta(seconds=10),
            retry_policy=UNHURRIED,
        )
        workflow.set_current_details(_details(outcome))
        return outcome


def _details(outcome: BatchOutcome) -> str:
    """Return what the Temporal UI shows of a batch."""
    lines = [
        f"{work.value.replace('_', ' ')}: {done} done, {outcome.stored.get(work, 0)} stored"
        for work, done in outcome.done.items()
    ]
    if outcome.problems:
        lines.append(", ".join(f"{n} {problem.value}" for problem, n in outcome.problems.items()))
    if outcome.failures:
        failures = ", ".join(f"{n} {failure}" for failure, n in outcome.failures.items())
        lines.append(f"failed attempts: {failures}")
    # The ledger has ten decimals, most of which are zeros.
    lines.append(f"{outcome.cost_usd.normalize():f} USD")
    return "\n\n".join(lines)
