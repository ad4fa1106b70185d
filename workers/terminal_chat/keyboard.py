"""The person's input: lines, secrets, Ctrl-C, and whether there is a person."""

import asyncio
import getpass
import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from pydantic import SecretStr

_LONGEST_LINE = 64 * 1024


class Keyboard:
    """The standard input."""

    def __init__(self) -> None:
        if self.attended and sys.stdout.isatty():
            # Importing it gives `input` line editing and a history. Elsewhere it is left alone,
            # since some versions write a control code to the output as they load.
            with suppress(ImportError):  # some builds of Python lack it
                importlib.import_module("readline")

    @property
    def attended(self) -> bool:
        """Whether a person can answer questions."""
        return sys.stdin.isatty()

    def ask(self, prompt: str) -> str | None:
        """Return the next line, or None at the end of the input."""
        try:
            return input(self._visible(prompt))
        except EOFError:
            return None

    def ask_secret(self, prompt: str) -> SecretStr:
        """Return a line that is not shown while it is typed; empty at the end of the input."""
        try:
            return SecretStr(getpass.getpass(prompt))
        except EOFError:
            return SecretStr("")

    def _visible(self, prompt: str) -> str:
        """Keep the prompt out of pipes and files, where there is no person to read it."""
        if not self.attended:
            return ""
        if sys.stdout.isatty():
            return prompt
        sys.stderr.write(prompt)
        sys.stderr.flush()
        return ""


@contextmanager
def lines_call(callback: Callable[[str | None], None]) -> Iterator[None]:
    """Call `callback` on the running loop with each line that is typed within the block.

    A terminal hands over one line at a time; what follows stays for the next question. None is the
    end of the input.
    """
    loop, typed = asyncio.get_running_loop(), sys.stdin.fileno()

    def on_line() -> None:
        line = os.read(typed, _LONGEST_LINE)
        if not line:
            loop.remove_reader(typed)
        callback(line.decode(errors="replace").strip() if line else None)

    loop.add_reader(typed, on_line)
    try:
        yield
    finally:
        loop.remove_reader(typed)


@contextmanager
def interrupts_call(callback: Callable[[], None]) -> Iterator[None]:
    """Call `callback` on the running loop at each Ctrl-C, instead of raising KeyboardInterrupt."""
    loop = asyncio.get_running_loop()

    def on_interrupt(_number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(callback)

    with _on_interrupt(on_interrupt):
        yield


@contextmanager
def interrupts_raise() -> Iterator[None]:
    """Raise KeyboardInterrupt at Ctrl-C, within a block where it does something else."""
    with _on_interrupt(signal.default_int_handler):
        yield


@contextmanager
def _on_interrupt(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Handle Ctrl-C. Only the main thread gets signals; in another one this does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
