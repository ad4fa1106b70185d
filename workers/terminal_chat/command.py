"""`everturn chat`: puts its parts together and turns the outcome into an exit code."""

import io
import os
import sys
from pathlib import Path

from everturn_client import EverturnError
from workers.terminal_chat.answering import TurnOutcome
from workers.terminal_chat.conversation import Conversation
from workers.terminal_chat.credentials import TerminalError
from workers.terminal_chat.live_screen import LiveScreen
from workers.terminal_chat.screen import PlainScreen, Screen
from workers.terminal_chat.session import INTERRUPTED, api_origin, open_session, sentence_of
from workers.terminal_chat.sign_in import SignIn

_EXIT_CODES = {
    TurnOutcome.COMPLETED: 0,
    TurnOutcome.FAILED: 1,
    TurnOutcome.CANCELLED: INTERRUPTED,
    TurnOutcome.LEFT: INTERRUPTED,
}


def run_chat(
    *,
    url: str | None,
    data_dir: Path,
    email: str | None,
    sign_up: bool,
    chat_id: str | None,
    new: bool,
    model: str | None,
    message: str | None,
) -> int:
    """Chat at the prompt, or send one message and print its answer; return the exit code.

    Without `chat_id` and `new` it continues the latest chat. The exit code is 1 for a failed turn
    or an error, 130 for a cancelled turn or one that was left by Ctrl-C, and otherwise 0.
    """
    screen = _screen()
    try:
        with open_session(api_origin(url, data_dir), screen) as session:
            sign_in = SignIn(session, email=email, sign_up=sign_up)
            sign_in.ensure()
            conversation = Conversation(session, sign_in, model=model)
            if chat_id is not None:
                conversation.enter(chat_id)
            elif not new:
                conversation.enter_latest()
            if message is None:
                return conversation.talk()
            return _EXIT_CODES[conversation.say(message)]
    except (EverturnError, TerminalError) as error:
        screen.line(sentence_of(error), style="red")
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


def _screen() -> Screen:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A character that the output can't hold must not end the conversation.
            stream.reconfigure(errors="replace")
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        return LiveScreen(sys.stdout)
    return PlainScreen(answers=sys.stdout, lines=sys.stderr)
