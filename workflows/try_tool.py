"""Trial of one tool in a worker, where tools run."""

from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities import names
    from schema.names import TRY_TOOL
    from schema.tools import ToolTrialReference
    from workflows.retries import ONCE

_STORING = timedelta(seconds=10)


@workflow.defn(name=TRY_TOOL)
class TryTool:
    """A trial of a tool, without retries: the tool may have side effects."""

    @workflow.run
    async def run(self, trial: ToolTrialReference) -> None:
        """Run the tool; its outcome is stored in the database."""
        await workflow.execute_activity(
            names.TRY_TOOL,
            trial,
            summary=f"try {trial.tool}",
            start_to_close_timeout=timedelta(seconds=trial.within_s) + _STORING,
            heartbeat_timeout=timedelta(seconds=10),
            retry_policy=ONCE,
        )
