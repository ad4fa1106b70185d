"""The conversation: the open chat, what is sent to it, and the commands."""

import asyncio
import re
from collections.abc import Callable
from typing import TypeVar

from everturn_client import (
    AsyncEverturn,
    AuthenticationError,
    Chat,
    EverturnError,
    StreamInterruptedError,
    TurnInProgressError,
)
from workers.terminal_chat.answering import Answering, TurnOutcome
from workers.terminal_chat.approvals import ApprovalPrompt
from workers.terminal_chat.credentials import TerminalError
from workers.terminal_chat.screen import shortened
from workers.terminal_chat.session import INTERRUPTED, Session, sentence_of
from workers.terminal_chat.sign_in import SignIn

T = TypeVar("T")

_HELP = """\
/new      start a new chat with the next message
/chats    list your latest chats
/open N   continue chat N of that list
/quit     leave (Ctrl-C and Ctrl-D do, too)
During an answer, Ctrl-C stops it, and a second Ctrl-C leaves at once.
A tool that needs your approval asks before it runs."""
_LISTED_CHATS = 20
_RECALLED_MESSAGES = 6
_COMMAND = re.compile(r"(/[a-z]+)(?:\s+(.*))?", re.DOTALL)
# With their pauses about 25 s: long enough for a restart of the API.
_STREAM_RETRIES = 6


class Conversation:
    """What the person does in one run of the chat."""

    def __init__(self, session: Session, sign_in: SignIn, *, model: str | None) -> None:
        self._session = session
        self._client = session.client
        self._screen = session.screen
        self._keyboard = session.keyboard
        self._sign_in = sign_in
        self._model = model
        self._chat: Chat | None = None
        self._listed: list[Chat] = []
        self._commands: dict[str, Callable[[str], None]] = {
            "/help": self._show_help,
            "/new": self._start_chat,
            "/chats": self._list_chats,
            "/open": self._open_listed_chat,
        }

    def enter(self, chat_id: str) -> None:
        """Continue a chat."""
        self._chat = self._call(lambda: self._client.chats.get(chat_id))

    def enter_latest(self) -> None:
        """Continue the latest chat; without any, the first message starts one."""
        chats = self._call(lambda: self._client.chats.list().first(1))
        self._chat = chats[0] if chats else None

    def say(self, content: str) -> TurnOutcome:
        """Send `content` to the open chat and show the answer."""
        # Bytes that were not UTF-8 arrive as lone surrogates, which no request can carry.
        content = content.encode(errors="replace").decode()
        if self._chat is None:
            title = shortened(content)
            self._chat = self._call(lambda: self._client.chats.create(title=title))
        chat_id = self._chat.id
        try:
            return self._call(lambda: asyncio.run(self._answer(chat_id, content)))
        except StreamInterruptedError:
            raise TerminalError(
                "The connection was lost. The turn continues: "
                f"`everturn chat --chat {chat_id}` shows its answer."
            ) from None

    def talk(self) -> int:
        """Serve the prompt until the person leaves; return the exit code."""
        title = (self._chat.title if self._chat else None) or "New chat"
        self._screen.line(f"{title} · /help lists the commands", style="dim")
        while True:
            try:
                line = self._keyboard.ask("> ")
                if line is None or line.strip() == "/quit":
                    return 0
                outcome = self._serve(line.strip())
            except KeyboardInterrupt:
                return 0
            if outcome is TurnOutcome.LEFT:
                return INTERRUPTED

    async def _answer(self, chat_id: str, content: str) -> TurnOutcome:
        prompt = ApprovalPrompt(self._screen, self._keyboard) if self._keyboard.attended else None
        async with AsyncEverturn(
            self._session.url,
            token_store=self._session.credentials,
            max_retries=_STREAM_RETRIES,
            max_retry_after_s=5.0,
        ) as client:
            answering = Answering(
                client,
                self._screen,
                chat_id=chat_id,
                content=content,
                model=self._model,
                approvals=prompt,
            )
            return await answering.run()

    def _serve(self, line: str) -> TurnOutcome | None:
        try:
            if command := _COMMAND.fullmatch(line):
                self._command(command[1], command[2] or "")
            elif line:
                return self.say(line)
        except (EverturnError, TerminalError) as error:
            self._screen.line(sentence_of(error), style="red")
            if isinstance(error, TurnInProgressError):
                self._screen.line("Wait for that answer, or start another chat with /new.")
        return None

    def _command(self, name: str, argument: str) -> None:
        command = self._commands.get(name)
        if command is None:
            self._screen.line(f"Unknown command {name}; /help lists them.")
        else:
            command(argument)

    def _show_help(self, _argument: str) -> None:
        self._screen.line(_HELP)

    def _start_chat(self, _argument: str) -> None:
        self._chat = None
        self._screen.line("The next message starts a new chat.", style="dim")

    def _list_chats(self, _argument: str) -> None:
        self._listed = self._call(lambda: self._client.chats.list().first(_LISTED_CHATS))
        for number, chat in enumerate(self._listed, start=1):
            self._screen.line(f"{number:>3}  {chat.title or 'Untitled'}")
        if not self._listed:
            self._screen.line("No chats yet.")

    def _open_listed_chat(self, argument: str) -> None:
        if not self._listed:
            self._list_chats("")
        number = int(argument) if argument.isdecimal() else 0
        if not 1 <= number <= len(self._listed):
            self._screen.line("Use /open N, with a number from /chats.")
            return
        self._chat = chat = self._listed[number - 1]
        self._screen.line(chat.title or "Untitled", style="bold")
        newest = self._client.messages.list(chat.id, sort="-createdAt", limit=_RECALLED_MESSAGES)
        for message in reversed(self._call(lambda: newest.first(_RECALLED_MESSAGES))):
            mark = "> " if message.role == "user" else ""
            self._screen.line(f"{mark}{message.content}", style="dim")

    def _call(self, operation: Callable[[], T]) -> T:
        """Run `operation`; if the session has expired, sign in and run it again."""
        try:
            return operation()
        except AuthenticationError as error:
            self._screen.line(sentence_of(error))
        self._sign_in.sign_in()
        return operation()
