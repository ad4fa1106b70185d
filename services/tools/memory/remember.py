"""Owns the `remember` tool: what it takes, and how it says what became of it."""

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Final, assert_never

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from schema.memories import CreateMemoryRequest, Memory, MemoryKind
from schema.result import Err
from schema.tools import RetryClass, ToolDefinition
from schema.wire import make_storable
from services.memories.remembering import KnownBefore, Remembered, Remembering
from services.prompts.quotes import one_line
from services.resources import Conflict, LimitReached
from services.tools.definition import ToolExecution, ToolOutcome, input_schema
from services.tools.repository import NEEDS_A_USER, user_of

_DESCRIPTION: Final = (
    "Remembers something about the user for later chats. Kinds: fact, preference, instruction "
    "(how to answer) and event."
)
_INSTRUCTIONS: Final = (
    "Use remember when the user asks you to remember something, and only then. Write it so that "
    "it can be understood without this chat."
)
_LONGEST_KEY: Final = 200


class RememberInput(BaseModel):
    """What is to be remembered."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    content: str = Field(
        min_length=1, max_length=2_000, pattern=r"\S", description="One statement, complete."
    )
    kind: str = Field(
        MemoryKind.FACT.value, json_schema_extra={"enum": [kind.value for kind in MemoryKind]}
    )
    importance: float = Field(0.5, ge=0, le=1, description="1 is the most important.")
    although_alike: bool = Field(
        False,  # noqa: FBT003 -- a default
        description="Only after it was said that something alike is known, and it is not the same.",
    )


class Remember:
    """A tool that keeps a memory, once for each call."""

    definition: Final = ToolDefinition(
        name="remember",
        description=_DESCRIPTION,
        input_schema=input_schema(RememberInput),
        timeout=timedelta(seconds=15),
        retry_class=RetryClass.KEYED,
        instructions=_INSTRUCTIONS,
    )

    def __init__(self, remembering: Remembering) -> None:
        self._remembering = remembering

    async def run(
        self, tool_input: Mapping[str, JsonValue], execution: ToolExecution, /
    ) -> ToolOutcome:
        """Keep the memory, and say what is kept now.

        Errors: DatabaseUnavailableError.
        """
        actor = user_of(execution)
        if actor is None:
            return NEEDS_A_USER
        wished = RememberInput.model_validate(tool_input)
        request = CreateMemoryRequest(
            content=make_storable(wished.content),
            kind=MemoryKind(wished.kind),
            importance=wished.importance,
        )
        result = await self._remembering.remember(
            actor,
            request,
            key=_key_of(execution),
            source_turn_id=execution.turn_id,
            even_if_alike=wished.although_alike,
        )
        if isinstance(result, Err):
            return ToolOutcome(output=_refusal(result.error), is_error=True)
        match result.value:
            case Remembered(memory):
                return ToolOutcome(output=f"Remembered: {_quoted(memory)}")
            case KnownBefore(memory):
                return ToolOutcome(
                    output=f"Nothing new was remembered, as this is known: {_quoted(memory)}. "
                    "If it is not the same, call remember again with `although_alike`."
                )
            case _:
                assert_never(result.value)


def _refusal(refusal: LimitReached | Conflict) -> str:
    match refusal:
        case LimitReached(limit):
            return (
                f"Not remembered: the user's plan has room for {limit} memories, and that is how "
                "many there are. They can delete some, those rejected too."
            )
        case Conflict.RESOURCE_DELETED:
            return "It was remembered, and the user has deleted it since."
        case _:
            return "Not remembered: this call was made before with another input."


def _quoted(memory: Memory) -> str:
    return f"“{one_line(memory.content, limit=300)}” ({memory.kind.value})"


def _key_of(execution: ToolExecution) -> str:
    """Return the call's key as long as keys may be: a provider chooses the ids of calls."""
    key = execution.key
    if len(key) <= _LONGEST_KEY:
        return key
    return f"tool:{hashlib.sha256(key.encode()).hexdigest()}"
