"""What the workflow learns of a model call: its stop reason, its tool calls, whether it goes on."""

from collections.abc import Sequence

from schema.tools import ToolDefinition
from schema.turns import CallModelInput, CallModelOutput, ToolCallReference
from services.tools.executor import ToolExecutor
from services.turns.answers import stop_word
from services.turns.requested_calls import RequestedCall, StoredAnswer


class CallOutputs:
    """Names tools and reasons as a workflow's history may hold them."""

    def __init__(self, tools: ToolExecutor, *, max_tool_calls: int, max_steps: int) -> None:
        self._tools = tools
        self._max_tool_calls = max_tool_calls
        self.max_steps = max_steps

    async def of_stored(self, call: CallModelInput, stored: StoredAnswer) -> CallModelOutput:
        """Return the output of a step whose answer an earlier attempt has stored."""
        return CallModelOutput(
            stop_reason=stop_word(stored.stop_reason),
            tool_calls=await self.references(stored.tool_calls),
            attempt=stored.attempt,
            usage=stored.usage,
            cost_usd=stored.cost_usd,
            to_correct=self.is_to_correct(
                call, stored.problem, stored.stop_reason, was_corrected=stored.is_correction
            ),
            max_steps=self.max_steps,
        )

    def is_to_correct(
        self, call: CallModelInput, problem: str | None, stop_reason: str, *, was_corrected: bool
    ) -> bool:
        """Return whether the model is asked once more for an answer that does not fit.

        One that was cut off at its limit would be cut off again, and one that was refused refused.
        """
        is_whole, has_step = stop_reason == "end_turn", call.step < self.max_steps
        return problem is not None and is_whole and has_step and not was_corrected

    async def references(self, calls: Sequence[RequestedCall]) -> tuple[ToolCallReference, ...]:
        """Name only existing tools: a name that the model invents may be anything.

        Calls beyond the limit have failed already.
        """
        made = calls[: self._max_tool_calls]
        if not made:
            return ()
        tools = await self._tools.known([call.name for call in made])
        return tuple(_reference(call, tools.find(call.name)) for call in made)


def _reference(call: RequestedCall, tool: ToolDefinition | None) -> ToolCallReference:
    if tool is None:
        return ToolCallReference(id=call.id, name="unknown", instant=True)
    return ToolCallReference(
        id=call.id,
        name=tool.name,
        instant=tool.instant,
        needs_approval=call.needs_approval,
        timeout_s=None if tool.instant else tool.timeout.total_seconds(),
    )
