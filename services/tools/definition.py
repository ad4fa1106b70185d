"""Owns what a tool is: its description, what a call of it is and what may come of one.

Does not run anything: `executor.py` does.

ToolUnavailableError    the tool did not answer; the same call may work later
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, Protocol
from uuid import UUID

from pydantic import BaseModel, ConfigDict, JsonValue

from schema.actors import Actor
from schema.ids import ChatId, TurnId
from schema.tools import ToolDefinition


class ToolOutcome(BaseModel):
    """What goes back to the model; an error says how the call can be corrected.

    `blocks` are the content blocks of the Messages API (`text` and `image`) that take the place
    of `output` where it is more than text; `output` says the same in words. `cost_usd` is what
    the call did cost, where the tool knows better than its definition.
    """

    model_config = ConfigDict(frozen=True)

    output: str
    is_error: bool = False
    blocks: tuple[dict[str, Any], ...] = ()
    cost_usd: Decimal | None = None


@dataclass(frozen=True, slots=True)
class ToolProgress:
    """How far a call has come, as the tool counts it."""

    progress: float
    total: float | None = None
    message: str | None = None


def _unheard(progress: ToolProgress) -> None:
    """Do nothing: nobody wants to know."""


@dataclass(frozen=True, slots=True)
class ToolExecution:
    """For whom and for which call a tool runs; outside of a turn, an administrator tries it.

    `key` is the same for every attempt of a call, and for no other: what doubles would show by.
    """

    actor: Actor
    key: str
    attempt: int = 1
    chat_id: ChatId | None = None
    turn_id: TurnId | None = None
    step: int = 0
    tool_call_id: str = ""
    report: Callable[[ToolProgress], None] = _unheard


class ToolUnavailableError(Exception):
    """The tool did not answer; its text is a sentence for the model, without secrets.

    `reached` is whether the call may have had its effect; where it can't have, it may be made
    again whatever the tool's retry class.
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
        """Describe the tool."""
        ...

    async def run(
        self, tool_input: Mapping[str, JsonValue], execution: ToolExecution, /
    ) -> ToolOutcome:
        """Return the outcome for an input that satisfies the definition's schema.

        Errors: what the model can correct is an outcome with `is_error`; ToolUnavailableError
        for an outage; what else raises is a bug, for the caller to retry or report.
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
    """Return the key of a call, as webhooks and MCP servers are told it."""
    return f"{turn_id}:{step}:{tool_call_id}"
