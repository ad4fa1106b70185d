"""What turns said and did with tools, as later prompts send it."""

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from schema.contexts import PromptLayers
from schema.errors import ErrorCode
from schema.turns import REFUSAL, StepStatus, TurnStatus
from services.database import Connection
from services.prompts.conversation import EarlierCall, EarlierStep, ToolWork
from services.prompts.fitting import work_tokens
from services.tools.offered_schema import names_of_input

_SUSPECT: Final = frozenset(
    {ErrorCode.MODEL_REJECTED, ErrorCode.PAYLOAD_TOO_LARGE, ErrorCode.INTERNAL}
)
"""Why a turn may have failed because of what its tools returned."""


def work_of(turn: str, *, whole: str) -> str:
    """Return the SQL of what a turn said and did with tools; its outputs if `whole`.

    Nothing of an answer that a later step corrected; and an output names the images that it had,
    which are not sent again.
    """
    return f"""json_build_array(
        (SELECT json_agg(json_build_array(
             step, CASE WHEN status = 'completed' AND (problem IS NULL OR text <> '') THEN blocks
                        ELSE '[]' END, text) ORDER BY step)
         FROM steps WHERE steps.turn_id = {turn}),
        (SELECT json_agg(json_build_array(
             step, tool_call_id, status, CASE WHEN {whole} THEN output END,
             edited_input, octet_length(output), name)
             ORDER BY step, position)
         FROM tool_calls WHERE tool_calls.turn_id = {turn}))"""  # noqa: S608 -- constants of ours


_WORK: Final = f"SELECT {work_of('$1', whole='true')}"


def tool_work(found: str, layers: PromptLayers | None, *, is_brief: bool = False) -> ToolWork:
    """Return the work of a turn as `work_of` reads it, without its tokens."""
    steps, calls = json.loads(found)
    return ToolWork(
        [EarlierStep(step, blocks or _spoken(text)) for step, blocks, text in steps or ()],
        [_earlier_call(call, layers) for call in calls or ()],
        is_brief=is_brief,
    )


class EndingStep(NamedTuple):
    """A step of a turn that ends; only of one that died are the thoughts read."""

    step: int
    attempt: int
    status: StepStatus
    model: str
    text: str
    stop_reason: str | None
    calls_tools: bool
    thinking: str | None
    has_thought: bool
    fits: bool

    @property
    def is_running(self) -> bool:
        """Whether its process died before it had a result."""
        return self.status == StepStatus.RUNNING


class InLaterPrompts(NamedTuple):
    """What later prompts have of an answer; the columns of its message.

    Units: the tokens of its tool calls and results, whole and shortened.
    """

    work_tokens: int
    brief_tokens: int
    left_out: bool


async def in_later_prompts(
    connection: Connection,
    turn_id: UUID,
    steps: Sequence[EndingStep],
    *,
    status: TurnStatus,
    code: ErrorCode | None,
) -> InLaterPrompts:
    """Return what later prompts have of an ending turn.

    Nothing of a refused message, or where nothing was said or done; and no tool calls where they
    may be why the turn failed.
    """
    whole = brief = 0
    is_suspect = status is TurnStatus.FAILED and code in _SUSPECT
    if not is_suspect and any(step.calls_tools for step in steps):
        work = tool_work(await connection.fetchval(_WORK, turn_id), None)
        whole, brief = work_tokens(work), work_tokens(work._replace(is_brief=True))
    is_refused = bool(steps) and steps[-1].stop_reason == REFUSAL
    has_said = any(step.text.strip() for step in steps)
    return InLaterPrompts(whole, brief, left_out=is_refused or not (has_said or whole))


def _spoken(text: str) -> list[dict[str, Any]]:
    """Return the blocks of a step that broke off."""
    return [{"type": "text", "text": text}] if text.strip() else []


def _earlier_call(call: Sequence[Any], layers: PromptLayers | None) -> EarlierCall:
    step, tool_call_id, status, output, edited_input, size, name = call
    known = as_the_model_knows(edited_input, name, layers)
    return EarlierCall(step, tool_call_id, status, output, None, known, size)


def as_the_model_knows(
    tool_input: dict[str, Any] | None, tool: str, layers: PromptLayers | None
) -> dict[str, Any] | None:
    """Return a person's input in the names that the model was offered."""
    offered = () if layers is None else layers.offered
    schema = next((known.input_schema for known in offered if known.name == tool), None)
    if tool_input is None or schema is None:
        return tool_input
    return names_of_input(schema).for_model(tool_input)
