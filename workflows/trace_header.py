"""Carries the context of a trace from a workflow's start to its activities, as a header.

Headers are no part of what a replay compares: runs replay with them or without. Turns that a
workflow starts are not its children in a trace: other requests asked for them.
"""

from collections.abc import Mapping
from typing import Any, Final

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.worker import (
    ExecuteWorkflowInput,
    StartActivityInput,
    StartLocalActivityInput,
    WorkflowInboundInterceptor,
    WorkflowOutboundInterceptor,
)

TRACE_HEADER: Final = "traceparent"
"""Holds what the HTTP header of this name would. Source: W3C Trace Context."""


class TraceHeader(WorkflowInboundInterceptor):
    """Copies the header of the workflow to each of its activities."""

    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        """Take part in what the workflow asks for."""
        self._outbound = _Copying(outbound)
        super().init(self._outbound)

    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:  # noqa: A002, ANN401 -- the SDK's signature
        """Run the workflow."""
        carried = input.headers.get(TRACE_HEADER)
        if carried is not None:
            self._outbound.carried = {TRACE_HEADER: carried}
        return await super().execute_workflow(input)


class _Copying(WorkflowOutboundInterceptor):
    carried: Mapping[str, Payload] = {}

    def start_activity(self, input: StartActivityInput) -> workflow.ActivityHandle[Any]:  # noqa: A002 -- the SDK's name
        input.headers = {**input.headers, **self.carried}
        return super().start_activity(input)

    def start_local_activity(self, input: StartLocalActivityInput) -> workflow.ActivityHandle[Any]:  # noqa: A002 -- the SDK's name
        input.headers = {**input.headers, **self.carried}
        return super().start_local_activity(input)
