"""Scripts: how a test decides the answer to the next request that matches."""

from collections import deque
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

_STRICT = ConfigDict(frozen=True, extra="forbid")


class ToolCall(BaseModel):
    """A tool that the scripted answer calls; without an id, one is generated.

    `written` is what the model writes for its input where that is not the JSON of it.
    """

    model_config = _STRICT

    name: str
    input: dict[str, Any] = Field(default_factory=dict)
    id: str | None = None
    written: str | None = None


class ScriptedUsage(BaseModel):
    """Token counts that replace the counted ones; None keeps the counted one."""

    model_config = _STRICT

    input_tokens: int | None = Field(None, ge=0)
    output_tokens: int | None = Field(None, ge=0)
    cache_creation_input_tokens: int = Field(0, ge=0)
    cache_read_input_tokens: int = Field(0, ge=0)


class Script(BaseModel):
    """How one matching request is answered.

    `match` is looked up in the newest user text. With neither `text`, `pieces`, `tool_calls` nor
    `thinking` the rules write the answer and the rest of the script plays it. `pieces` are the
    exact text deltas. The fields `…_after` and `hold_after` count content deltas of every kind: 0
    is behind `message_start` and before any delta; a count beyond the last delta acts before
    `message_delta`. A refusal (`status`) and the first event come after `delay_to_first_s`; until
    then nothing is sent, not even the head of the response.
    """

    model_config = _STRICT

    match: str = ""
    repeat: int = Field(1, ge=1)

    text: str | None = None
    pieces: tuple[str, ...] | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    thinking: str | None = None
    stop_reason: str | None = None
    usage: ScriptedUsage = ScriptedUsage()

    delay_to_first_s: float | None = Field(None, ge=0)
    delay_between_s: float | None = Field(None, ge=0)

    status: int | None = Field(None, ge=400, le=599)
    message: str = "Refused by the script."
    retry_after: float | None = Field(None, ge=0)

    break_after: int | None = Field(None, ge=0)
    stall_after: int | None = Field(None, ge=0)
    error_after: int | None = Field(None, ge=0)
    hold: str | None = None
    hold_after: int = Field(0, ge=0)

    @property
    def writes_answer(self) -> bool:
        """Whether the script sets the content of the answer, not only its timing."""
        texts = (self.text, self.pieces, self.thinking)
        return bool(self.tool_calls) or any(text is not None for text in texts)


NO_SCRIPT = Script()


class ScriptQueue:
    """Scripts waiting for their request, first come, first used."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Script, int]] = deque()

    def __len__(self) -> int:
        return sum(uses for _, uses in self._waiting)

    def add(self, script: Script) -> None:
        """Queue the script behind those already waiting."""
        self._waiting.append((script, script.repeat))

    def clear(self) -> None:
        """Forget every script that was not used."""
        self._waiting.clear()

    def take(self, user_text: str) -> Script | None:
        """Return the first script that matches, using it up once, or None."""
        for position, (script, uses) in enumerate(self._waiting):
            if script.match in user_text:
                self._use_up(position, script, uses)
                return script
        return None

    def _use_up(self, position: int, script: Script, uses: int) -> None:
        if uses > 1:
            self._waiting[position] = (script, uses - 1)
        else:
            del self._waiting[position]
