"""What a tool of any kind takes and returns: the execution, the outcome and its bounds.

Runs nothing: `executor.py` does.

ToolUnavailableError    the tool did not answer; the same call may work later
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final, Protocol
from uuid import UUID

from pydantic import BaseModel, ConfigDict, JsonValue

from schema.actors import ANONYMOUS, SERVICE, Actor, acting_user
from schema.ids import ChatId, TurnId
from schema.tools import ToolDefinition
from schema.wire import make_storable

DEFAULT_MAX_OUTPUT_CHARS: Final = 20_000


class ToolOutcome(BaseModel):
    """What goes back to the model; an error says how the call can be corrected.

    `blocks` are content blocks of the Messages API (`text` and `image`) that replace `output`
    if the result is more than text; `output` says the same in words. `cost_usd` is the actual
    cost of the call if it differs from the definition's.
    """

    model_config = ConfigDict(frozen=True)

    output: str
    is_error: bool = False
    blocks: tuple[dict[str, Any], ...] = ()
    cost_usd: Decimal | None = None


@dataclass(frozen=True, slots=True)
class ToolProgress:
    """Progress of a call, in the tool's own units."""

    progress: float
    total: float | None = None
    message: str | None = None


def _ignore(progress: ToolProgress) -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True)
class ToolExecution:
    """One attempt at a call and the actor that it is for; outside a turn it is a trial.

    `key` is shared by all attempts of a call and by no other call, so that a tool can recognise a
    repeated one. `elapsed` is how long ago the first attempt began.
    """

    actor: Actor
    key: str
    attempt: int = 1
    elapsed: timedelta = timedelta()
    chat_id: ChatId | None = None
    turn_id: TurnId | None = None
    step: int = 0
    tool_call_id: str = ""
    report: Callable[[ToolProgress], None] = _ignore


class ToolUnavailableError(Exception):
    """The tool did not answer; `sentence` is for the model, without secrets.

    `reached` is whether the call may have taken effect; if not, it may be retried whatever the
    tool's retry class.
    """

    def __init__(
        self, sentence: str, *, reached: bool, retry_after: timedelta | None = None
    ) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.reached = reached
        self.retry_after = retry_after


class LocalTool(Protocol):
    """A tool that runs in the worker's own process."""

    @property
    def definition(self) -> ToolDefinition:
        """The tool's definition."""
        ...

    async def run(
        self, tool_input: Mapping[str, JsonValue], execution: ToolExecution, /
    ) -> ToolOutcome:
        """Return the outcome for an input that satisfies the definition's schema.

        Errors: what the model can correct is an outcome with `is_error`; ToolUnavailableError
        for an outage; any other exception is a bug, for the caller to retry or report.
        """
        ...


def input_schema(model: type[BaseModel]) -> dict[str, JsonValue]:
    """Return the JSON schema of a flat input model without pydantic's generated titles.

    The schema travels in every prompt, where a title that repeats the name only costs tokens.
    """
    schema: dict[str, Any] = model.model_json_schema()
    schema.pop("title", None)
    # The docstring speaks to developers; the definition's description speaks to the model.
    schema.pop("description", None)
    for described in schema["properties"].values():
        described.pop("title", None)
    return schema


def execution_key(turn_id: UUID, step: int, tool_call_id: str) -> str:
    """Return the key of a call, which webhooks and MCP servers receive."""
    return f"{turn_id}:{step}:{tool_call_id}"


NEEDS_A_USER: Final = ToolOutcome(
    output="This tool works on behalf of a user, and this call has none.", is_error=True
)


def user_of(execution: ToolExecution) -> Actor | None:
    """Return the user that a call is for, or None if it is for none.

    An administrator counts as an ordinary user here: tools only reach what the caller owns.
    """
    user_id = execution.actor.user_id
    if user_id in {SERVICE.user_id, ANONYMOUS.user_id}:
        return None
    return acting_user(user_id)


def bounded(outcome: ToolOutcome, *, max_chars: int = DEFAULT_MAX_OUTPUT_CHARS) -> ToolOutcome:
    """Return the outcome cut to `max_chars`, with text that can't be stored replaced."""
    blocks = tuple(
        {**block, "text": cut(make_storable(block["text"]), limit=max_chars)}
        if block.get("type") == "text"
        else block
        for block in outcome.blocks
    )
    output = cut(make_storable(outcome.output), limit=max_chars)
    return outcome.model_copy(update={"output": output, "blocks": blocks})


def cut(text: str, *, limit: int) -> str:
    """Return the text, or its beginning and a note of its full length."""
    if len(text) <= limit:
        return text
    # The marker counts towards the limit, at the length that it has with the larger number.
    kept = max(0, limit - len(_cut_marker(len(text), len(text))))
    return text[:kept] + _cut_marker(kept, len(text))


def _cut_marker(kept: int, total: int) -> str:
    return f"\n[Cut here: the first {kept:,} of {total:,} characters are shown.]"
