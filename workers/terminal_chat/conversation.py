"""The conversation: the open chat, what is sent to it, and the commands."""

import asyncio
import re
from collections.abc import Callable
from mimetypes import guess_type
from pathlib import Path
from typing import TypeAlias, TypeVar

from everturn_client import (
    AsyncEverturn,
    AsyncTurnStream,
    AuthenticationError,
    Chat,
    EverturnError,
    Message,
    StreamInterruptedError,
    TurnInProgressError,
)
from everturn_client.calls import UNSET, Maybe
from everturn_client.chats import TurnOptions
from everturn_client.streams import ConnectionState
from workers.terminal_chat.answering import Answering, Ask, TurnOutcome
from workers.terminal_chat.approvals import ApprovalPrompt
from workers.terminal_chat.credentials import TerminalError
from workers.terminal_chat.screen import message_lines, shortened
from workers.terminal_chat.session import INTERRUPTED, Session, sentence_of
from workers.terminal_chat.sign_in import SignIn

T = TypeVar("T")
_Ask: TypeAlias = Callable[[AsyncEverturn, Callable[[ConnectionState], None]], AsyncTurnStream]

_HELP = """\
/new      start a new chat with the next message
/chats    list your latest chats
/open N   continue chat N of that list
/rename T give this chat the title T
/edit M   ask M instead of your last message, on a branch of its own
/again    get another answer to your last message (/regenerate does, too)
/branches list the branches of this chat, /branch N continues one of them
/attach P attach the file P to your next message, an image, a PDF or a text
/model M  ask model M from now on
/think on let the model think first and show its thoughts; /think off, /think N tokens
/quit     leave (Ctrl-C and Ctrl-D do, too)
During an answer, a line that you type joins it before its next step, or is answered next.
Ctrl-C stops the answer, and a second Ctrl-C leaves at once.
A tool that needs your approval asks before it runs."""
_LISTED_CHATS = 20
_RECALLED_MESSAGES = 6
_SEARCHED_MESSAGES = 1_000
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
        self._options: TurnOptions = {}
        self._chat: Chat | None = None
        self._listed: list[Chat] = []
        self._attached: list[str] = []
        self._branches: list[Message] = []
        self._typed_ahead: list[str] = []
        self._commands: dict[str, Callable[[str], None]] = {
            "/help": self._show_help,
            "/new": self._start_chat,
            "/chats": self._list_chats,
            "/open": self._open_listed_chat,
            "/rename": self._rename_chat,
            "/branches": self._list_branches,
            "/branch": self._choose_listed_branch,
            "/attach": self._attach,
            "/model": self._choose_model,
            "/think": self._choose_thinking,
        }
        self._asking: dict[str, Callable[[str], TurnOutcome | None]] = {
            "/edit": self._edit,
            "/again": self._regenerate,
            "/regenerate": self._regenerate,
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
            self._chat = self._call(self._client.chats.create)
        return self._send(self._chat.id, content)

    def _send(
        self, chat_id: str, content: str, *, parent_id: Maybe[str | None] = UNSET
    ) -> TurnOutcome:
        attached, self._attached = self._attached, []
        return self._ask(
            chat_id,
            lambda client, changed: client.messages.stream(
                chat_id,
                content=content,
                model=self._model,
                on_connection=changed,
                parent_id=parent_id,
                attachments=attached,
                **self._options,
            ),
        )

    def _ask(self, chat_id: str, ask: _Ask) -> TurnOutcome:
        self._branches = []
        try:
            return self._call(lambda: asyncio.run(self._answer(chat_id, ask)))
        except StreamInterruptedError:
            raise TerminalError(
                "The connection was lost. The turn continues: "
                f"`everturn chat --chat {chat_id}` shows its answer."
            ) from None

    def talk(self) -> int:
        """Serve the prompt until the person leaves; return the exit code."""
        title = (self._chat.title if self._chat else None) or "New chat"
        self._screen.line(f"{title} · /help lists the commands", style="dim")
        if self._chat is not None:
            self._show_latest(self._chat.id)
        while True:
            try:
                ahead = self._typed_ahead
                line = ahead.pop(0) if ahead else self._keyboard.ask("> ")
                if line is None or line.strip() == "/quit":
                    return 0
                outcome = self._serve(line.strip())
            except KeyboardInterrupt:
                return 0
            if outcome is TurnOutcome.LEFT:
                return INTERRUPTED

    async def _answer(self, chat_id: str, ask: _Ask) -> TurnOutcome:
        """Show the answer, and those to messages that were typed meanwhile and didn't join it."""
        is_attended = self._keyboard.attended
        prompt = ApprovalPrompt(self._screen, self._keyboard) if is_attended else None
        async with AsyncEverturn(
            self._session.url,
            token_store=self._session.credentials,
            max_retries=_STREAM_RETRIES,
            max_retry_after_s=5.0,
        ) as client:

            def steer(content: str) -> AsyncTurnStream:
                content = content.encode(errors="replace").decode()
                return client.messages.stream(
                    chat_id, content=content, model=self._model, if_busy="steer"
                )

            async def answer(ask: Ask) -> tuple[TurnOutcome, list[str]]:
                answering = Answering(
                    client,
                    self._screen,
                    ask,
                    approvals=prompt,
                    steer=steer if is_attended else None,
                )
                outcome = await answering.run()
                self._typed_ahead += answering.commands
                is_left = outcome is TurnOutcome.LEFT
                return outcome, [] if is_left else await answering.unanswered()

            outcome, waiting = await answer(lambda changed: ask(client, changed))
            while waiting:
                turn_id = waiting.pop(0)
                outcome, more = await answer(
                    lambda changed: client.turns.events(turn_id, on_connection=changed)  # noqa: B023 -- opened in this round
                )
                waiting += more
            return outcome

    def _serve(self, line: str) -> TurnOutcome | None:
        try:
            if command := _COMMAND.fullmatch(line):
                return self._command(command[1], command[2] or "")
            if line:
                return self.say(line)
        except (EverturnError, TerminalError) as error:
            self._screen.line(sentence_of(error), style="red")
            if isinstance(error, TurnInProgressError):
                self._screen.line("Wait for that answer, or start another chat with /new.")
        return None

    def _command(self, name: str, argument: str) -> TurnOutcome | None:
        if asking := self._asking.get(name):
            return asking(argument)
        command = self._commands.get(name)
        if command is None:
            self._screen.line(f"Unknown command {name}; /help lists them.")
        else:
            command(argument)
        return None

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
        self._branches = []
        self._show_latest(chat.id)

    def _show_latest(self, chat_id: str) -> None:
        newest = self._client.messages.list(chat_id, sort="-createdAt", limit=_RECALLED_MESSAGES)
        for message in reversed(self._call(lambda: newest.first(_RECALLED_MESSAGES))):
            for line in message_lines(message):
                self._screen.line(line, style="dim")

    def _rename_chat(self, title: str) -> None:
        if self._chat is None or not title:
            self._screen.line("Use /rename TITLE in a chat.")
            return
        chat_id = self._chat.id
        self._chat = self._call(lambda: self._client.chats.update(chat_id, title=title))

    def _attach(self, argument: str) -> None:
        path = Path(argument.strip()).expanduser()
        try:
            data = path.read_bytes()
        except (OSError, ValueError):
            self._screen.line("Use /attach PATH, with the path of a file that can be read.")
            return
        kind = guess_type(path.name)[0]
        file = self._call(
            lambda: self._client.files.upload(data, filename=path.name, content_type=kind)
        )
        self._attached.append(file.id)
        self._screen.line(
            f"{file.name} ({file.content_type}, {file.size:,} bytes) goes with your next message.",
            style="dim",
        )

    def _choose_model(self, name: str) -> None:
        self._model = name or None
        self._screen.line(f"Messages go to {name or 'your default model'}.", style="dim")

    def _choose_thinking(self, wish: str) -> None:
        match wish:
            case "on":
                self._options = {"thinking": "on"}
            case "off":
                self._options = {"thinking": "off"}
            case _ if wish.isdecimal():
                self._options = {"thinking": {"budgetTokens": int(wish)}}
            case "":
                self._options = {}
            case _:
                self._screen.line("Use /think on, /think off, or /think N with a number of tokens.")
                return
        self._screen.line(f"Thinking: {wish or 'as the model does by itself'}.", style="dim")

    def _edit(self, content: str) -> TurnOutcome | None:
        question = self._last_question()
        if question is None or not content:
            self._screen.line("Use /edit MESSAGE after a message.")
            return None
        return self._send(question.chat_id, content, parent_id=question.parent_id)

    def _regenerate(self, _argument: str) -> TurnOutcome | None:
        question = self._last_question()
        if question is None:
            self._screen.line("Use /again after a message.")
            return None
        return self._ask(
            question.chat_id,
            lambda client, changed: client.turns.stream_regenerate(
                question.turn_id, model=self._model, on_connection=changed, **self._options
            ),
        )

    def _last_question(self) -> Message | None:
        if self._chat is None:
            return None
        newest = self._client.messages.list(self._chat.id, sort="-createdAt", limit=2)
        last = self._call(lambda: newest.first(2))
        return next((message for message in last if message.role == "user"), None)

    def _list_branches(self, _argument: str) -> None:
        """List the last messages of all branches, the current one first."""
        if self._chat is None:
            self._screen.line("Use /branches in a chat.")
            return
        chat_id = self._chat.id
        self._chat = chat = self._call(lambda: self._client.chats.get(chat_id))
        everything = self._client.messages.list(chat_id, branch="all", sort="-createdAt", limit=100)
        messages = self._call(lambda: everything.first(_SEARCHED_MESSAGES))
        followed = {message.parent_id for message in messages}
        leaves = [message for message in messages if message.id not in followed]
        self._branches = sorted(leaves, key=lambda message: message.id != chat.leaf_id)
        for number, leaf in enumerate(self._branches, start=1):
            mark = " (current)" if leaf.id == chat.leaf_id else ""
            self._screen.line(f"{number:>3}  {shortened(leaf.content)}{mark}")

    def _choose_listed_branch(self, argument: str) -> None:
        if not self._branches:
            self._list_branches("")
        number = int(argument) if argument.isdecimal() else 0
        if self._chat is None or not 1 <= number <= len(self._branches):
            self._screen.line("Use /branch N, with a number from /branches.")
            return
        chat_id, leaf = self._chat.id, self._branches[number - 1].id
        self._chat = self._call(lambda: self._client.chats.choose_branch(chat_id, leaf))
        self._branches = []
        self._show_latest(chat_id)

    def _call(self, operation: Callable[[], T]) -> T:
        """Run `operation`; if the session has expired, sign in and run it again."""
        try:
            return operation()
        except AuthenticationError as error:
            self._screen.line(sentence_of(error))
        self._sign_in.sign_in()
        return operation()
