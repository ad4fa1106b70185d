"""Owns what one run of the client works with: the API, the screen, the keyboard and a loop."""

from asyncio import Runner
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from workers.terminal_chat.api_client import ApiClient
from workers.terminal_chat.keyboard import Keyboard
from workers.terminal_chat.screen import Screen

T = TypeVar("T")


@dataclass(frozen=True)
class Session:
    """One run of the client.

    Asking at the keyboard blocks and requests are coroutines, so the conversation is plain code
    that runs the loop only while it waits for the API: Ctrl-C at the prompt stays an ordinary
    KeyboardInterrupt.
    """

    api: ApiClient
    screen: Screen
    keyboard: Keyboard
    runner: Runner

    def wait_for(self, operation: Coroutine[Any, Any, T]) -> T:
        """Run `operation` to its end and return what it returns."""
        return self.runner.run(operation)
