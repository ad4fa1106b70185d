"""Screens: what each one offers, how lines read, and the plain one, for pipes and files.

`live_screen` has the one for terminals.
"""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol, TextIO

from pydantic import JsonValue
from rich.console import Console
from rich.text import Text

from everturn_client import (
    AttachmentPart,
    Message,
    TextPart,
    ThinkingPart,
    ToolCallEvent,
    ToolCallPart,
    TurnState,
)

RESTART_MARK = "↻ restarted"
THOUGHT_MARK = "✻"
_SHOWN_STATUSES = {"awaiting_approval", "completed", "failed", "denied"}
_SHORT = 60
# Control characters would control the terminal, so their symbols are shown instead.
_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"}
_PICTURES |= {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)


class AnswerView(Protocol):
    """Shows one answer as it grows."""

    def show(self, state: TurnState) -> None:
        """Show `state`, taking back what it no longer says."""

    def note(self, sentence: str) -> None:
        """Show a sentence about the connection or the turn, beside the answer."""

    def paused(self) -> AbstractContextManager[None]:
        """Leave the screen to a question during the block."""


class Screen(Protocol):
    """Where the conversation is shown."""

    def answer(self) -> AbstractContextManager[AnswerView]:
        """Return the view of one answer; its text stays on the screen afterwards."""

    def line(self, sentence: str, *, style: str = "") -> None:
        """Show one line beside the conversation."""


def console_of(stream: TextIO) -> Console:
    """Return a console that writes control codes only where `stream` is a terminal."""
    return Console(file=stream, force_terminal=stream.isatty(), highlight=False)


def print_line(console: Console, sentence: str, *, style: str = "") -> None:
    """Print `sentence` as it is, but for control characters."""
    console.print(Text(harmless(sentence), style=style), soft_wrap=True)


class PlainScreen:
    """Prints text as it comes, without control codes."""

    def __init__(self, *, answers: TextIO, lines: TextIO) -> None:
        self._answers = answers
        self._lines = console_of(lines)

    @contextmanager
    def answer(self) -> Iterator[AnswerView]:
        """Return the view of one answer; the text that it prints ends with one newline."""
        view = PlainAnswer(self._answers, self._lines)
        try:
            yield view
        finally:
            view.end()

    def line(self, sentence: str, *, style: str = "") -> None:
        """Print a line on the stream that is not the answer's."""
        print_line(self._lines, sentence, style=style)


class PlainAnswer:
    """One answer on a stream that can't take text back.

    Text that was cleared and comes back the same is not printed twice. Where it comes back
    different, a line with `RESTART_MARK` says so, and the whole answer follows: the text after
    the last mark is the exact message.
    """

    def __init__(self, answers: TextIO, lines: Console) -> None:
        self._answers = answers
        self._lines = lines
        self._printed = ""
        self._said: set[str] = set()
        self._state = TurnState()

    def show(self, state: TurnState) -> None:
        """Print what is new in `state`."""
        self._state = state
        self._print_text(state.text, final=state.done is not None)
        self._say_thoughts(state)
        for call in state.tool_calls.values():
            if call.status in _SHOWN_STATUSES:
                self._say_once(tool_line(call))
        for notice in state.notices:
            self._say_once(notice.message)

    def note(self, sentence: str) -> None:
        """Print a line beside the answer."""
        print_line(self._lines, sentence)

    def paused(self) -> AbstractContextManager[None]:
        """Do nothing: what is printed stays."""
        return nullcontext()

    def end(self) -> None:
        """Close the answer's last line and say how the turn ended."""
        if self._printed:
            self._write("\n")
        if (failure := failure_line(self._state)) is not None:
            self.note(failure)
        if self._state.done is not None and (summary := summary_line(self._state)):
            self.note(summary)

    def _print_text(self, text: str, *, final: bool) -> None:
        if text.startswith(self._printed):
            self._write(text[len(self._printed) :])
        elif final or not self._printed.startswith(text):
            self._write(f"\n{RESTART_MARK}\n{text}")
        else:
            return  # cleared, and so far coming back the same
        self._printed = text

    def _say_thoughts(self, state: TurnState) -> None:
        """Print what the model thought in each step, once the step has gone on to something else.

        They go where notices go: they are no part of the answer.
        """
        called = {call.step for call in state.tool_calls.values()}
        answered = {step for step, text in state.texts() if text}
        for step, thought in state.thoughts():
            is_over = step in called | answered or state.done is not None
            if is_over and thought.strip():
                self._say_once(f"{THOUGHT_MARK} {thought.strip()}", style="dim")

    def _write(self, text: str) -> None:
        if text:
            self._answers.write(text)
            self._answers.flush()

    def _say_once(self, sentence: str, *, style: str = "") -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            print_line(self._lines, sentence, style=style)


def harmless(text: str) -> str:
    """Return `text` with every control character but newline and tab made visible."""
    return text.translate(_PICTURES)


def shortened(text: str, *, limit: int = _SHORT) -> str:
    """Return `text` on one line of at most `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def message_lines(message: Message) -> Iterator[str]:
    """Yield an earlier message: its texts and tool calls, its sources, and why it ended early."""
    if message.parts is None:
        yield f"{_mark_of(message)}{message.content}"
    for part in message.parts or ():
        match part:
            case TextPart():
                yield f"{_mark_of(message)}{part.text}"
            case ThinkingPart():
                yield f"✻ {shortened(part.text)}"
            case ToolCallPart():
                yield tool_line(part)
            case AttachmentPart():
                yield f"{_mark_of(message)}[{part.name}]"
            case _:
                pass
    titles = dict.fromkeys(cited.title for cited in message.citations if cited.title)
    if titles:
        yield f"Sources: {', '.join(map(shortened, titles))}"
    if message.error is not None:
        yield f"✗ {message.error.message} ({message.error.code})"


def _mark_of(message: Message) -> str:
    return "> " if message.role == "user" else ""


def tool_line(call: ToolCallEvent | ToolCallPart) -> str:
    """Return a tool call as its name, input, status and output."""
    called_with = _value(call.input)
    if call.input is None and call.input_bytes is not None:
        called_with = f"({call.input_bytes:,} bytes)"
    parts = [f"{call.name} {called_with}".strip(), call.status.replace("_", " ")]
    if call.output is not None:
        parts.append(_value(call.output))
    return "⚙ " + " · ".join(parts)


def summary_line(state: TurnState) -> str:
    """Return the model, tokens and cost of a finished turn, as far as they are known."""
    done = state.done
    parts = [state.model] if state.model else []
    if done is not None and done.status == "cancelled":
        parts.append("stopped")
    if done is not None and done.usage is not None:
        usage = done.usage
        cached = f" + {usage.cache_read_tokens} cached" if usage.cache_read_tokens else ""
        parts.append(f"{usage.input_tokens}{cached} in, {usage.output_tokens} out")
    if done is not None and done.cost_usd is not None:
        parts.append(f"${done.cost_usd.normalize():f}")
    return " · ".join(parts)


def failure_line(state: TurnState) -> str | None:
    """Return why the turn failed, or None if it did not."""
    if state.error is not None:
        return f"✗ {state.error.message} ({state.error.code})"
    if state.done is not None and state.done.status == "failed":
        return "✗ The turn failed."
    return None


def _value(value: JsonValue) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return shortened(text)
