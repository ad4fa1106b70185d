"""Owns the screen of pipes and files: the answer alone on one stream, the rest on another."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TextIO

from rich.console import Console

from workers.terminal_chat.screen import AnswerView, console_of, print_line
from workers.terminal_chat.transcript import Transcript
from workers.terminal_chat.wording import failure_line, summary_line, tool_line

RESTART_MARK = "↻ starting again"
_SHOWN_STATUSES = {"awaiting_approval", "completed", "failed", "denied"}


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
    otherwise, a line with `RESTART_MARK` says so, and the whole answer follows it anew: what
    stands behind the last mark is the exact message.
    """

    def __init__(self, answers: TextIO, lines: Console) -> None:
        self._answers = answers
        self._lines = lines
        self._printed = ""
        self._said: set[str] = set()
        self._transcript = Transcript()

    def show(self, transcript: Transcript) -> None:
        """Print what is new in `transcript`."""
        self._transcript = transcript
        self._print_text(transcript.text, final=transcript.done is not None)
        for call in transcript.tool_calls.values():
            if call.status in _SHOWN_STATUSES:
                self._say_once(tool_line(call))
        for notice in transcript.notices:
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
        if (failure := failure_line(self._transcript)) is not None:
            self.note(failure)
        if self._transcript.done is not None and (summary := summary_line(self._transcript)):
            self.note(summary)

    def _print_text(self, text: str, *, final: bool) -> None:
        if text.startswith(self._printed):
            self._write(text[len(self._printed) :])
        elif final or not self._printed.startswith(text):
            self._write(f"\n{RESTART_MARK}\n{text}")
        else:
            return  # cleared, and so far coming back the same
        self._printed = text

    def _write(self, text: str) -> None:
        if text:
            self._answers.write(text)
            self._answers.flush()

    def _say_once(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            self.note(sentence)
