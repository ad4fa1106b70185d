"""One turn as the person sees it: the answer grows on the screen and can be stopped."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from enum import StrEnum
from typing import TypeAlias

from everturn_client import (
    APIConnectionError,
    APIStatusError,
    AsyncEverturn,
    AsyncTurnStream,
    BadRequestError,
    EverturnError,
    PayloadTooLargeError,
    ToolCallEvent,
    TurnState,
)
from everturn_client.streams import ConnectionState
from workers.terminal_chat.approvals import AWAITING, ApprovalPrompt, Decision, how_to_decide
from workers.terminal_chat.keyboard import interrupts_call, interrupts_raise, lines_call
from workers.terminal_chat.screen import AnswerView, Screen
from workers.terminal_chat.session import sentence_of

_NOTES: dict[ConnectionState, str] = {
    "accepted": "queued; the answer will follow…",
    "lost": "reconnecting…",
    "restored": "reconnected",
}


Ask: TypeAlias = Callable[[Callable[[ConnectionState], None]], AsyncTurnStream]
"""Asks for an answer and returns its stream, which reports changes of the connection."""

Steer: TypeAlias = Callable[[str], AsyncTurnStream]
"""Sends a message that is to join the running turn, and returns the stream of its own turn."""


class TurnOutcome(StrEnum):
    """How a turn ended for the person."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LEFT = "left"


class Answering:
    """Asks for one answer and shows it until the turn is done.

    Without `approvals` there is no person to ask about tool calls: how to decide is shown instead.
    With `steer`, what is typed meanwhile joins the turn; commands are kept in `commands` for later.
    """

    def __init__(
        self,
        client: AsyncEverturn,
        screen: Screen,
        ask: Ask,
        *,
        approvals: ApprovalPrompt | None = None,
        steer: Steer | None = None,
    ) -> None:
        self.commands: list[str] = []
        self.state = TurnState()
        self._client = client
        self._screen = screen
        self._approvals = approvals
        self._steer = steer
        self._steering: list[asyncio.Task[str | None]] = []
        self._asked: set[str] = set()
        self._stream = ask(lambda state: self._note(_NOTES[state]))
        self._opened = asyncio.Event()
        self._view: AnswerView | None = None
        self._following: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._left = False

    async def run(self) -> TurnOutcome:
        """Show the answer until `done`; until then, Ctrl-C calls `interrupt`.

        Errors: those of the client's streams.
        """
        with self._screen.answer() as view:
            self._view = view
            self._following = asyncio.create_task(self._follow(view))
            try:
                with self._typing(), interrupts_call(self.interrupt):
                    await self._following
            except asyncio.CancelledError:
                if not self._left:
                    raise
            finally:
                await self._end_stopping()
        return self._outcome()

    async def unanswered(self) -> list[str]:
        """Return the turns of messages that came too late to join this one."""
        sent = await asyncio.gather(*self._steering)
        joined = {event.turn_id for event in self.state.joined.values()}
        return [turn_id for turn_id in sent if turn_id is not None and turn_id not in joined]

    def interrupt(self) -> None:
        """Stop the turn and keep following it; the second time, leave at once."""
        if self._following is None or self._following.done():
            return
        if self._stopping is None:
            self._note("stopping…")
            self._stopping = asyncio.create_task(self._stop())
        else:
            self._left = True
            self._following.cancel()

    def _typing(self) -> AbstractContextManager[None]:
        return nullcontext() if self._steer is None else lines_call(self._take_line)

    def _take_line(self, line: str | None) -> None:
        if line is None:
            self.commands.append("/quit")
        elif line.startswith("/"):
            self.commands.append(line)
        elif line:
            self._steering.append(asyncio.create_task(self._send(line)))

    async def _send(self, content: str) -> str | None:
        """Send a message that is to join the turn; return its own turn, or None if it failed."""
        await self._opened.wait()
        if self._steer is None:
            return None
        try:
            async with self._steer(content) as sent:
                self._screen.line(f"↪ {content}", style="dim")
                return sent.turn_id
        except EverturnError as error:
            self._screen.line(f"Not sent: {sentence_of(error)}", style="red")
            return None

    async def _follow(self, view: AnswerView) -> None:
        async with self._stream as stream:
            self.state = stream.state
            self._opened.set()
            async for event in stream:
                view.show(stream.state)
                if isinstance(event, ToolCallEvent) and event.status == AWAITING:
                    await self._settle(event, stream, view)

    async def _settle(self, call: ToolCallEvent, stream: AsyncTurnStream, view: AnswerView) -> None:
        """Have the person decide about a call, unless they want everything to stop."""
        if call.tool_call_id in self._asked or self._stopping is not None:
            return
        self._asked.add(call.tool_call_id)
        decided = await self._decided(call, stream.turn_id, view)
        if not decided and self._stopping is None:
            path = f"turns/{stream.turn_id}/approvals/{call.tool_call_id}"
            view.note(how_to_decide(call, url=f"{self._client.base_url}/api/v1/{path}"))

    async def _decided(self, call: ToolCallEvent, turn_id: str, view: AnswerView) -> bool:
        """Ask until the API accepts the decision or no longer needs one; False without one."""
        try:
            call = await self._with_input(call, turn_id)
        except EverturnError as error:
            view.note(sentence_of(error))
            return False
        while (decision := self._ask(call, view)) is not None:
            try:
                await self._client.turns.decide(
                    turn_id,
                    call.tool_call_id,
                    decision.decision,
                    reason=decision.reason or None,
                    input=decision.input,
                    remember_for_chat=decision.remember_for_chat,
                )
            except (BadRequestError, PayloadTooLargeError) as error:
                # The API rejected what was typed; the person may correct it.
                view.note(str(error))
                continue
            except APIStatusError as error:
                view.note(str(error))
            except APIConnectionError as error:
                view.note(sentence_of(error))
                return False
            return True
        return False

    async def _with_input(self, call: ToolCallEvent, turn_id: str) -> ToolCallEvent:
        """Return the call with its input: nobody approves what they can't see."""
        if self._approvals is None or call.input_bytes is None or call.input is not None:
            return call
        whole = await self._client.turns.tool_call(turn_id, call.tool_call_id)
        return call.model_copy(update={"input": whole.input})

    def _ask(self, call: ToolCallEvent, view: AnswerView) -> Decision | None:
        """Block the loop for a question: what arrives during it waits in the connection."""
        if self._approvals is None:
            return None
        try:
            with view.paused(), interrupts_raise():
                return self._approvals.ask(call)
        except KeyboardInterrupt:
            self.interrupt()
            return None

    async def _stop(self) -> None:
        await self._opened.wait()
        try:
            await self._stream.cancel()
        except EverturnError as error:
            self._note(sentence_of(error))

    async def _end_stopping(self) -> None:
        if self._stopping is not None:
            self._stopping.cancel()
            with suppress(asyncio.CancelledError):
                await self._stopping

    def _note(self, sentence: str) -> None:
        if self._view is not None:
            self._view.note(sentence)

    def _outcome(self) -> TurnOutcome:
        if self.state.done is None:
            return TurnOutcome.LEFT
        match self.state.done.status:
            case "completed":
                return TurnOutcome.COMPLETED
            case "cancelled":
                return TurnOutcome.CANCELLED
            case _:
                return TurnOutcome.FAILED
