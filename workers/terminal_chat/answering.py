"""Owns one turn as the person lives it: the answer grows on the screen and can be stopped."""

import asyncio
from contextlib import aclosing, suppress
from enum import StrEnum

from workers.terminal_chat.api_client import ApiClient, OutgoingMessage, approval_path
from workers.terminal_chat.approvals import AWAITING, ApprovalPrompt, Decision, how_to_decide
from workers.terminal_chat.errors import ApiError, ChatClientError, UnreachableError
from workers.terminal_chat.events import ToolCall
from workers.terminal_chat.interrupts import interrupts_call, interrupts_raise
from workers.terminal_chat.screen import AnswerView, Screen
from workers.terminal_chat.transcript import Transcript
from workers.terminal_chat.turn_stream import Patience, TurnStream

# What was typed does not suit the API; the person may correct it.
_ASK_AGAIN = frozenset({400, 413})


class TurnOutcome(StrEnum):
    """How a turn ended for the person."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LEFT = "left"


class Answering:
    """Sends one message and shows its answer until the turn is done.

    Without `approvals` nobody can be asked about tool calls: how to decide is shown instead.
    """

    def __init__(
        self,
        api: ApiClient,
        screen: Screen,
        message: OutgoingMessage,
        *,
        patience: Patience | None = None,
        approvals: ApprovalPrompt | None = None,
    ) -> None:
        self.transcript = Transcript()
        self._api = api
        self._screen = screen
        self._approvals = approvals
        self._asked: set[str] = set()
        self._stream = TurnStream(api, message, patience=patience or Patience(), notify=self._note)
        self._view: AnswerView | None = None
        self._following: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._left = False

    async def run(self) -> TurnOutcome:
        """Show the answer until `done`; Ctrl-C is `interrupt` meanwhile.

        Errors: those of `TurnStream.events`.
        """
        with self._screen.answer() as view:
            self._view = view
            self._following = asyncio.create_task(self._follow(view))
            try:
                with interrupts_call(self.interrupt):
                    await self._following
            except asyncio.CancelledError:
                if not self._left:
                    raise
            finally:
                await self._end_stopping()
        return self._outcome()

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

    async def _follow(self, view: AnswerView) -> None:
        async with aclosing(self._stream.events()) as events:
            async for event in events:
                self.transcript.apply(event)
                view.show(self.transcript)
                if isinstance(event, ToolCall) and event.status == AWAITING:
                    await self._settle(event, view)

    async def _settle(self, call: ToolCall, view: AnswerView) -> None:
        """Have the person decide about a call that waits for it, unless they want all to stop."""
        if call.tool_call_id in self._asked or self._stopping is not None:
            return
        self._asked.add(call.tool_call_id)
        turn_id = await self._stream.turn_id()
        if not await self._decided(call, turn_id, view) and self._stopping is None:
            path = approval_path(turn_id, call.tool_call_id)
            view.note(how_to_decide(call, url=f"{self._api.url}/api/v1{path}"))

    async def _decided(self, call: ToolCall, turn_id: str, view: AnswerView) -> bool:
        """Ask until the API takes the decision or has no use for it; False where nobody decides."""
        while (decision := self._ask(call, view)) is not None:
            try:
                await self._tell(turn_id, call, decision)
            except ApiError as error:
                view.note(str(error))
                if error.status in _ASK_AGAIN:
                    continue
            except UnreachableError as error:
                view.note(str(error))
                return False
            return True
        return False

    def _ask(self, call: ToolCall, view: AnswerView) -> Decision | None:
        """Stop the loop for a question: what comes meanwhile waits in the connection."""
        if self._approvals is None:
            return None
        try:
            with view.paused(), interrupts_raise():
                return self._approvals.ask(call)
        except KeyboardInterrupt:
            self.interrupt()
            return None

    async def _tell(self, turn_id: str, call: ToolCall, decision: Decision) -> None:
        patience = Patience()
        while True:
            try:
                return await self._api.decide(turn_id, call.tool_call_id, decision.body())
            except (ApiError, UnreachableError) as error:
                passes = isinstance(error, UnreachableError) or error.passes
                if not passes or not await patience.pause():
                    raise

    async def _stop(self) -> None:
        turn_id = await self._stream.turn_id()
        patience = Patience()
        try:
            while not await self._cancelled(turn_id) and await patience.pause():
                pass
        except ChatClientError as error:
            self._note(str(error))

    async def _cancelled(self, turn_id: str) -> bool:
        try:
            await self._api.cancel_turn(turn_id)
        except UnreachableError:
            return False
        return True

    async def _end_stopping(self) -> None:
        if self._stopping is not None:
            self._stopping.cancel()
            with suppress(asyncio.CancelledError):
                await self._stopping

    def _note(self, sentence: str) -> None:
        if self._view is not None:
            self._view.note(sentence)

    def _outcome(self) -> TurnOutcome:
        if self.transcript.done is None:
            return TurnOutcome.LEFT
        match self.transcript.done.status:
            case "completed":
                return TurnOutcome.COMPLETED
            case "cancelled":
                return TurnOutcome.CANCELLED
            case _:
                return TurnOutcome.FAILED
