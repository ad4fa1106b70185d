"""Owns the rule by which events become the assistant's message; shows nothing itself.

The rule: `step` clears its step's text, deltas of an older attempt don't count, and the message
is the text of the steps in their order.
"""

from dataclasses import dataclass, field
from typing import assert_never

from workers.terminal_chat.events import (
    Delta,
    Done,
    Event,
    Notice,
    StepStarted,
    ToolCall,
    TurnError,
    TurnOpened,
    Usage,
)


@dataclass
class StepText:
    """What the current attempt of a step has said so far."""

    attempt: int
    text: str = ""


@dataclass
class Transcript:
    """One turn as its events have told it so far."""

    steps: dict[int, StepText] = field(default_factory=dict)
    tool_calls: dict[str, ToolCall] = field(default_factory=dict)
    notices: list[Notice] = field(default_factory=list)
    error: TurnError | None = None
    model: str | None = None
    done: Done | None = None

    @property
    def streamed_text(self) -> str:
        """The message as the events of the steps add up to it."""
        return "".join(text for _, text in self.texts())

    @property
    def text(self) -> str:
        """The message; once the turn is done, the one that the server has stored."""
        if self.done is not None and self.done.assistant_message is not None:
            return self.done.assistant_message.content
        return self.streamed_text

    def texts(self) -> list[tuple[int, str]]:
        """Return each step with its text, in the order of the steps."""
        return [(step, self.steps[step].text) for step in sorted(self.steps)]

    def apply(self, event: Event) -> None:
        """Take one event in; events must come in the stream's order."""
        match event:
            case StepStarted():
                self._start(event)
            case Delta():
                self._append(event)
            case ToolCall():
                self._note_tool_call(event)
            case Notice() if event not in self.notices:
                self.notices.append(event)
            case Usage() if event.tool_call_id is None:
                self.model = event.model or self.model
            case TurnError():
                self.error = event
            case Done():
                self.done = event
            case TurnOpened() | Notice() | Usage():
                pass
            case _:
                assert_never(event)

    def _start(self, event: StepStarted) -> None:
        current = self.steps.get(event.step)
        if current is not None and event.attempt < current.attempt:
            return
        if current is not None and event.attempt > current.attempt:
            self._forget_tool_calls(event.step)
        self.steps[event.step] = StepText(event.attempt)
        self.model = event.model or self.model

    def _append(self, event: Delta) -> None:
        current = self.steps.get(event.step)
        if current is None or event.attempt > current.attempt:
            self._start(StepStarted(step=event.step, attempt=event.attempt))
        if event.attempt == self.steps[event.step].attempt:
            self.steps[event.step].text += event.text

    def _note_tool_call(self, event: ToolCall) -> None:
        earlier = self.tool_calls.get(event.tool_call_id)
        if earlier is not None and event.input is None:
            event = event.model_copy(update={"input": earlier.input})
        self.tool_calls[event.tool_call_id] = event

    def _forget_tool_calls(self, step: int) -> None:
        """Drop what an attempt that is void had asked for."""
        kept = {key: call for key, call in self.tool_calls.items() if call.step != step}
        self.tool_calls = kept
