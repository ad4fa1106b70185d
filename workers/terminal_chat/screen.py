"""Owns what every screen offers; `live_screen` and `plain_screen` are the two that exist."""

from contextlib import AbstractContextManager
from typing import Protocol, TextIO

from rich.console import Console
from rich.text import Text

from workers.terminal_chat.transcript import Transcript
from workers.terminal_chat.wording import harmless


class AnswerView(Protocol):
    """Shows one answer while it grows."""

    def show(self, transcript: Transcript) -> None:
        """Bring the view to what `transcript` says now, taking back what it no longer says."""

    def note(self, sentence: str) -> None:
        """Say something about the connection or the turn that is no part of the answer."""

    def paused(self) -> AbstractContextManager[None]:
        """Leave the screen to a question while the block runs."""


class Screen(Protocol):
    """Where the conversation is shown."""

    def answer(self) -> AbstractContextManager[AnswerView]:
        """Return the view of one answer; leaving it leaves the text that was shown last."""

    def line(self, sentence: str, *, style: str = "") -> None:
        """Show one line beside the conversation."""


def console_of(stream: TextIO) -> Console:
    """Return a console that writes control codes only where `stream` is a terminal."""
    return Console(file=stream, force_terminal=stream.isatty(), highlight=False)


def print_line(console: Console, sentence: str, *, style: str = "") -> None:
    """Print `sentence` as it is, but for control characters."""
    console.print(Text(harmless(sentence), style=style), soft_wrap=True)
