"""Owns `everturn chat`: puts its parts together and turns what happened into an exit code."""

import io
import os
import sys
from asyncio import Runner
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from workers.api_address import api_origin
from workers.terminal_chat.answering import TurnOutcome
from workers.terminal_chat.api_client import ApiClient
from workers.terminal_chat.conversation import Conversation
from workers.terminal_chat.credentials import CredentialFile, credentials_path
from workers.terminal_chat.errors import ChatClientError
from workers.terminal_chat.keyboard import Keyboard
from workers.terminal_chat.live_screen import LiveScreen
from workers.terminal_chat.plain_screen import PlainScreen
from workers.terminal_chat.screen import Screen
from workers.terminal_chat.session import Session
from workers.terminal_chat.sign_in import SignIn

_INTERRUPTED = 130
_EXIT_CODES = {
    TurnOutcome.COMPLETED: 0,
    TurnOutcome.FAILED: 1,
    TurnOutcome.CANCELLED: _INTERRUPTED,
    TurnOutcome.LEFT: _INTERRUPTED,
}


def run_chat(
    *,
    url: str | None,
    data_dir: Path,
    email: str | None,
    chat_id: str | None,
    new: bool,
    model: str | None,
    message: str | None,
) -> int:
    """Talk at the prompt, or send one message and print its answer; return the exit code.

    Without `chat_id` and `new` it goes on with the latest chat. The exit code is 1 for a failed
    turn or an error, 130 for a cancelled turn or one that was left by Ctrl-C, and else 0.
    """
    screen = _screen()
    origin = api_origin(url, data_dir)
    try:
        with _session(screen, origin) as session:
            sign_in = SignIn(session, email=email)
            sign_in.ensure()
            conversation = Conversation(session, sign_in, model=model)
            _enter(conversation, chat_id, new=new)
            if message is None:
                return conversation.talk()
            return _EXIT_CODES[conversation.say(message)]
    except ChatClientError as error:
        screen.line(str(error), style="red")
        return 1
    except httpx2.InvalidURL:
        screen.line(f"{origin} is no address.", style="red")
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED


@contextmanager
def _session(screen: Screen, origin: str) -> Iterator[Session]:
    api = ApiClient(origin, CredentialFile(credentials_path(), url=origin))
    with Runner() as runner:
        try:
            yield Session(api, screen, Keyboard(), runner)
        finally:
            runner.run(api.aclose())


def _enter(conversation: Conversation, chat_id: str | None, *, new: bool) -> None:
    if chat_id is not None:
        conversation.enter(chat_id)
    elif not new:
        conversation.enter_latest()


def _screen() -> Screen:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A character that the output can't hold must not end the conversation.
            stream.reconfigure(errors="replace")
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        return LiveScreen(sys.stdout)
    return PlainScreen(answers=sys.stdout, lines=sys.stderr)
