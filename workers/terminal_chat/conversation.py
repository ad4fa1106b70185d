"""Owns the conversation: the chat that is open, what is sent to it, and the commands."""

import re
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from workers.terminal_chat.answering import Answering, TurnOutcome
from workers.terminal_chat.answers import Chat
from workers.terminal_chat.api_client import OutgoingMessage
from workers.terminal_chat.approvals import ApprovalPrompt
from workers.terminal_chat.errors import ApiError, ChatClientError, SignedOutError
from workers.terminal_chat.session import Session
from workers.terminal_chat.sign_in import SignIn
from workers.terminal_chat.wording import shortened

T = TypeVar("T")

_HELP = """\
/new      begin a new chat with the next message
/chats    list your latest chats
/open N   go on with chat N of that list
/quit     leave (so do Ctrl-C and Ctrl-D here)
While an answer comes, Ctrl-C stops it, and a second Ctrl-C leaves at once.
Where a tool needs your approval, you are asked before it runs."""
_LISTED_CHATS = 20
_RECALLED_MESSAGES = 6
_COMMAND = re.compile(r"(/[a-z]+)(?:\s+(.*))?", re.DOTALL)


class Conversation:
    """What the person does in one run of the client."""

    def __init__(self, session: Session, sign_in: SignIn, *, model: str | None) -> None:
        self._session = session
        self._api = session.api
        self._screen = session.screen
        self._keyboard = session.keyboard
        self._sign_in = sign_in
        self._model = model
        self._chat: Chat | None = None
        self._listed: list[Chat] = []
        self._commands: dict[str, Callable[[str], None]] = {
            "/help": self._show_help,
            "/new": self._begin_chat,
            "/chats": self._list_chats,
            "/open": self._open_listed_chat,
        }

    def enter(self, chat_id: str) -> None:
        """Go on with the chat of that id."""
        self._chat = self._call(lambda: self._api.chat(chat_id))

    def enter_latest(self) -> None:
        """Go on with the latest chat; where there is none, the first message begins one."""
        chats = self._call(lambda: self._api.chats(limit=1))
        self._chat = chats[0] if chats else None

    def say(self, content: str) -> TurnOutcome:
        """Send `content` to the open chat and show the answer."""
        # Bytes that were no UTF-8 arrive as lone surrogates, which no request can carry.
        content = content.encode(errors="replace").decode()
        if self._chat is None:
            title = shortened(content)
            self._chat = self._call(lambda: self._api.create_chat(title))
        message = OutgoingMessage(self._chat.id, content, self._model)
        prompt = ApprovalPrompt(self._screen, self._keyboard) if self._keyboard.attended else None
        return self._call(
            lambda: Answering(self._api, self._screen, message, approvals=prompt).run()
        )

    def talk(self) -> int:
        """Serve the prompt until the person leaves; return the exit code."""
        title = self._chat.title if self._chat else "New chat"
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
                return 130

    def _serve(self, line: str) -> TurnOutcome | None:
        try:
            if command := _COMMAND.fullmatch(line):
                self._command(command[1], command[2] or "")
            elif line:
                return self.say(line)
        except ChatClientError as error:
            self._screen.line(str(error), style="red")
            if isinstance(error, ApiError) and error.code == "TURN_IN_PROGRESS":
                self._screen.line("Wait for that answer, or begin another chat with /new.")
        return None

    def _command(self, name: str, argument: str) -> None:
        command = self._commands.get(name)
        if command is None:
            self._screen.line(f"There is no command {name}; /help lists them.")
        else:
            command(argument)

    def _show_help(self, _argument: str) -> None:
        self._screen.line(_HELP)

    def _begin_chat(self, _argument: str) -> None:
        self._chat = None
        self._screen.line("The next message begins a new chat.", style="dim")

    def _list_chats(self, _argument: str) -> None:
        self._listed = self._call(lambda: self._api.chats(limit=_LISTED_CHATS))
        for number, chat in enumerate(self._listed, start=1):
            self._screen.line(f"{number:>3}  {chat.title}")
        if not self._listed:
            self._screen.line("There are no chats yet.")

    def _open_listed_chat(self, argument: str) -> None:
        if not self._listed:
            self._list_chats("")
        number = int(argument) if argument.isdecimal() else 0
        if not 1 <= number <= len(self._listed):
            self._screen.line("Say which: /open N, with a number of the list of /chats.")
            return
        self._chat = chat = self._listed[number - 1]
        self._screen.line(chat.title, style="bold")
        for message in self._call(lambda: self._api.messages(chat.id))[-_RECALLED_MESSAGES:]:
            mark = "> " if message.role == "user" else ""
            self._screen.line(f"{mark}{message.content}", style="dim")

    def _call(self, operation: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run `operation`, and where the sign-in has ended meanwhile, sign in and run it again."""
        try:
            return self._session.wait_for(operation())
        except SignedOutError as error:
            self._screen.line(str(error))
        self._sign_in.sign_in()
        return self._session.wait_for(operation())
