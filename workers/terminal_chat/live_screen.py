"""The screen of a terminal: the growing answer can be taken back until it is final."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TextIO

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.segment import Segment, Segments
from rich.spinner import Spinner
from rich.syntax import Syntax
from rich.text import Text

from everturn_client import TurnState
from workers.terminal_chat.screen import (
    AnswerView,
    console_of,
    failure_line,
    harmless,
    print_line,
    summary_line,
    tool_line,
)

_SPINNER_LINES = 2
_RESERVED_LINES = _SPINNER_LINES + 1
_SHOWN_IN_A_PAUSE = 300


class LiveScreen:
    """Redraws the end of the answer in place, and prints the whole of it once it is final.

    Markdown is coloured but not rendered, since rendering drops characters of the message.
    """

    def __init__(self, terminal: TextIO) -> None:
        self._console = console_of(terminal)

    @contextmanager
    def answer(self) -> Iterator[AnswerView]:
        """Return the view of one answer."""
        view = LiveAnswer(self._console)
        # Transient: what is drawn in place is erased before the final text is printed.
        with Live(console=self._console, refresh_per_second=12, transient=True) as live:
            view.draw_on(live)
            try:
                yield view
            finally:
                live.stop()
                view.end()

    def line(self, sentence: str, *, style: str = "") -> None:
        """Print a line."""
        print_line(self._console, sentence, style=style)


class LiveAnswer:
    """One answer that is redrawn with each event."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._spinner = Spinner("dots", Text())
        self._state = TurnState()

    def draw_on(self, live: Live) -> None:
        """Draw on `live` from now on."""
        self._live = live
        self.show(self._state)

    def show(self, state: TurnState) -> None:
        """Draw the end of `state`, as much as the terminal's height takes."""
        self._state = state
        if self._live is not None:
            height = max(1, self._console.height - _RESERVED_LINES)
            limit = height * self._console.width
            parts = [*_drawn_parts(state, limit=limit), *_notices(state)]
            self._live.update(Group(Bottom(Group(*parts), height=height), self._spinner))

    def note(self, sentence: str) -> None:
        """Show `sentence` beside the spinner, until another one or the end."""
        self._spinner.update(text=Text(sentence, style="dim"))
        self.show(self._state)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Erase what is drawn in place but for its end, and draw it again after the block."""
        if self._live is None:
            yield
            return
        self._live.stop()
        if end := " ".join(self._state.streamed_text[-_SHOWN_IN_A_PAUSE:].split()):
            print_line(self._console, f"… {end}", style="dim")
        try:
            yield
        finally:
            self._live.start(refresh=True)

    def end(self) -> None:
        """Print the answer for good, exactly and whole."""
        for part in _final_parts(self._state):
            # Segments, since a Text would be wrapped and its tabs turned into blanks.
            self._console.print(Segments(part.render(self._console, end="\n")), soft_wrap=True)
        for notice in _notices(self._state):
            self._console.print(notice, soft_wrap=True)
        if (failure := failure_line(self._state)) is not None:
            print_line(self._console, failure, style="red")
        if self._state.done is not None and (summary := summary_line(self._state)):
            print_line(self._console, summary, style="dim")


class Bottom:
    """Draws the last lines of something that may be higher than the terminal."""

    def __init__(self, content: RenderableType, *, height: int) -> None:
        self._content = content
        self._height = height

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the last `height` lines."""
        lines = console.render_lines(self._content, options, pad=False)
        for line in islice(lines, max(0, len(lines) - self._height), None):
            yield from line
            yield Segment.line()


def _drawn_parts(state: TurnState, *, limit: int) -> list[Text]:
    """Return the steps and their tool calls; of a long text only the end, as it may be cut."""
    parts: list[Text] = []
    thoughts = dict(state.thoughts())
    for step, text in state.texts():
        parts += _thought(thoughts[step][-limit:])
        parts += [_coloured(text[-limit:])] if text else []
        parts += _tool_calls(state, step)
    return parts


def _final_parts(state: TurnState) -> list[Text]:
    """Return the steps and their tool calls, or the stored message where it says otherwise."""
    steps = state.texts()
    if state.text != state.streamed_text:
        tool_calls = [line for step, _ in steps for line in _tool_calls(state, step)]
        return [*tool_calls, _coloured(state.text)]
    longest = max([1, len(state.text), *(len(thought) for _, thought in state.thoughts())])
    return _drawn_parts(state, limit=longest)


def _thought(text: str) -> list[Text]:
    """Return what a model thought: dim, so that it is not taken for the answer."""
    return [Text(harmless(text), "dim italic")] if text.strip() else []


def _tool_calls(state: TurnState, step: int) -> list[Text]:
    calls = state.tool_calls.values()
    return [Text(harmless(tool_line(call)), "cyan") for call in calls if call.step == step]


def _notices(state: TurnState) -> list[Text]:
    return [Text(harmless(notice.message), "yellow") for notice in state.notices]


def _coloured(text: str) -> Text:
    """Return `text` with the colours of its Markdown, and every character that it had."""
    shown = harmless(text)
    coloured = Syntax("", "markdown", theme="ansi_dark").highlight(shown)
    return coloured if coloured.plain == shown else Text(shown)
