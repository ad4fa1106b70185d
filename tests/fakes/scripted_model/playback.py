"""Plays an answer to a connection, with the delays and faults of its script."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from tests.fakes.scripted_model.connection import AnswerEndedError, Connection
from tests.fakes.scripted_model.request_log import RequestRecord
from tests.fakes.scripted_model.scripts import Script
from workers.demo_model import wire
from workers.demo_model.answers import Answer, Block
from workers.demo_model.wire import Refusal

_OVERLOADED = Refusal(529, "Overloaded")
_PING = wire.sse_event({"type": "ping"})


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast an answer is played."""

    delay_to_first_s: float
    delay_between_s: float
    join_events: bool

    def overridden_by(self, script: Script) -> "Pace":
        """Return this pace with the delays that the script names."""
        first, between = script.delay_to_first_s, script.delay_between_s
        return Pace(
            delay_to_first_s=self.delay_to_first_s if first is None else first,
            delay_between_s=self.delay_between_s if between is None else between,
            join_events=self.join_events,
        )


@dataclass(frozen=True, slots=True)
class Playback:
    """An answer about to be played; as an ASGI application it is the response to the request."""

    answer: Answer
    script: Script
    record: RequestRecord
    pace: Pace
    gate: Callable[[str], asyncio.Event]
    streaming: bool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Play the answer until its end, its scripted fault or the client's leaving."""
        connection = Connection(
            scope, receive, send, record=self.record, join_events=self.pace.join_events
        )
        async with connection:
            try:
                await self._play(connection)
            except AnswerEndedError:
                self.record.end()

    async def _play(self, connection: Connection) -> None:
        await connection.wait(self.pace.delay_to_first_s)
        if self.script.status is not None:
            await self._refuse(connection, self._scripted_refusal(self.script.status))
        elif self.streaming:
            await self._stream(connection)
        else:
            await self._answer_at_once(connection)

    async def _stream(self, connection: Connection) -> None:
        await connection.start(200, self._headers("text/event-stream; charset=utf-8"))
        self.record.start(200, self.answer.usage)
        connection.write(wire.message_start(self.answer, self.record.usage))
        for index, block in enumerate(self.answer.blocks):
            await self._stream_block(connection, index, block)
        await self._interrupt(connection, after=self._at_end)
        connection.write(wire.message_delta(self.answer) + wire.MESSAGE_STOP)
        await connection.finish()
        self.record.finish()

    async def _stream_block(self, connection: Connection, index: int, block: Block) -> None:
        connection.write(wire.content_block_start(index, block))
        if index == 0:
            connection.write(_PING)
        shown = iter(block.pieces if block.kind != "tool_use" else ())
        for chars, delta in wire.content_block_deltas(index, block):
            if self.record.deltas_sent:
                await connection.wait(self.pace.delay_between_s)
            await self._interrupt(connection, after=self._at_this_delta)
            connection.write(delta)
            self.record.add_delta(chars, shown=next(shown, ""))
        connection.write(wire.content_block_stop(index))

    async def _answer_at_once(self, connection: Connection) -> None:
        pieces = sum(len(block.pieces) for block in self.answer.blocks)
        await connection.wait(self.pace.delay_between_s * max(0, pieces - 1))
        await self._interrupt(connection, after=self._at_end)
        await connection.start(200, self._headers("application/json"))
        self.record.start(200, self.answer.usage)
        connection.write(wire.message_body(self.answer))
        await connection.finish()
        self.record.finish()

    async def _interrupt(self, connection: Connection, *, after: Callable[[int], bool]) -> None:
        """Do what the script asks for at this place; all but a released hold end the answer."""
        script = self.script
        if script.hold is not None and after(script.hold_after):
            await connection.wait_for(self.gate(script.hold))
        if script.stall_after is not None and after(script.stall_after):
            await connection.until_gone()
        if script.break_after is not None and after(script.break_after):
            self.record.end()
            await connection.cut()
        if script.error_after is not None and after(script.error_after):
            await self._fail(connection)

    def _at_this_delta(self, count: int) -> bool:
        return count == self.record.deltas_sent

    def _at_end(self, count: int) -> bool:
        return count >= self.record.deltas_sent

    async def _fail(self, connection: Connection) -> None:
        if not self.streaming:
            await self._refuse(connection, _OVERLOADED)
        else:
            connection.write(wire.sse_event(_OVERLOADED.as_json(self.record.request_id)))
            await connection.finish()
        raise AnswerEndedError

    async def _refuse(self, connection: Connection, refusal: Refusal) -> None:
        headers = self._headers("application/json") | refusal.headers
        await connection.start(refusal.status, headers)
        connection.write(wire.encode_json(refusal.as_json(self.record.request_id)))
        await connection.finish()
        self.record.refuse(refusal.status)

    def _scripted_refusal(self, status: int) -> Refusal:
        return Refusal(status, self.script.message, retry_after_s=self.script.retry_after)

    def _headers(self, content_type: str) -> dict[str, str]:
        return {
            "content-type": content_type,
            "cache-control": "no-cache",
            "request-id": self.record.request_id,
        }
