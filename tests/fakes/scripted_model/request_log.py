"""The log of requests: what was asked, what was sent and billed, and how each one ended."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from workers.demo_model.answers import Usage, tokens_of
from workers.demo_model.prompt import JsonObject


def new_request_id() -> str:
    """Return an id for the header `request-id`."""
    return f"req_{uuid4().hex[:24]}"


@dataclass(slots=True, eq=False)
class RequestRecord:
    """One request for a message.

    `usage` is what was billed up to now: nothing before the answer starts, then the input and the
    output sent so far. `finished` says that the answer was sent to its end, `ended` that nothing
    more will be sent for whatever reason; `disconnected_at` is when the client left before that.
    Units: times are seconds of the monotonic clock.
    """

    sequence: int
    received_at: float
    request_id: str
    on_change: Callable[[], None] = field(repr=False)
    model: str | None = None
    body: JsonObject | None = None
    user_text: str = ""
    shown: str = ""
    status: int | None = None
    usage: Usage = field(default_factory=Usage)
    deltas_sent: int = 0
    finished: bool = False
    ended: bool = False
    disconnected_at: float | None = None
    _final_usage: Usage = field(init=False, default_factory=Usage)
    _chars_sent: int = field(init=False, default=0)

    def identify(self, body: JsonObject, *, user_text: str = "") -> None:
        """Note what was asked, as far as it could be read."""
        model = body.get("model")
        self.model = model if isinstance(model, str) else None
        self.body = body
        self.user_text = user_text
        self.on_change()

    def start(self, status: int, final_usage: Usage) -> None:
        """Note that the answer began: its input is billed, and the first token of its output."""
        self.status = status
        self._final_usage = final_usage
        self.usage = Usage(
            input_tokens=final_usage.input_tokens,
            output_tokens=1,
            cache_creation_input_tokens=final_usage.cache_creation_input_tokens,
            cache_read_input_tokens=final_usage.cache_read_input_tokens,
        )
        self.on_change()

    def add_delta(self, chars: int, *, shown: str = "") -> None:
        """Note a content delta and bill its characters; `shown` is its text or thinking."""
        self.shown += shown
        self.deltas_sent += 1
        self._chars_sent += chars
        self.usage.output_tokens = tokens_of(self._chars_sent)
        self.on_change()

    def finish(self) -> None:
        """Note that the answer was sent to its end."""
        self.usage = self._final_usage
        self.finished = True
        self.end()

    def refuse(self, status: int) -> None:
        """Note that the request got an error instead of an answer."""
        self.status = status
        self.end()

    def end(self) -> None:
        """Note that nothing more will be sent."""
        self.ended = True
        self.on_change()

    def disconnect(self) -> None:
        """Note that the client closed its socket, unless the request had ended by then."""
        if not self.ended:
            self.disconnected_at = time.monotonic()
            self.end()

    def as_json(self) -> dict[str, Any]:
        """Return the record for a test in another process."""
        return {
            "sequence": self.sequence,
            "received_at": self.received_at,
            "request_id": self.request_id,
            "model": self.model,
            "body": self.body,
            "status": self.status,
            "usage": self.usage.as_json(),
            "deltas_sent": self.deltas_sent,
            "finished": self.finished,
            "ended": self.ended,
            "disconnected_at": self.disconnected_at,
        }


class RequestLog:
    """The newest requests, oldest first, and a way to wait for what happens to them."""

    def __init__(self, *, keep: int) -> None:
        self._records: deque[RequestRecord] = deque(maxlen=keep)
        self._received = 0
        self._waiting: list[asyncio.Future[None]] = []

    def open(self, received_at: float) -> RequestRecord:
        """Return a new record, which is in the log from now on."""
        self._received += 1
        record = RequestRecord(
            sequence=self._received,
            received_at=received_at,
            request_id=new_request_id(),
            on_change=self._wake,
        )
        self._records.append(record)
        return record

    def matching(self, match: str = "", *, ended: bool = False) -> list[RequestRecord]:
        """Return the requests whose newest user text contains `match`, or of them the ended."""
        return [
            record
            for record in self._records
            if match in record.user_text and (record.ended or not ended)
        ]

    async def wait_until(self, condition: Callable[[], bool], *, timeout_s: float) -> None:
        """Return as soon as the condition holds; it is asked again after every change.

        Errors: TimeoutError if it does not hold within the time.
        """
        async with asyncio.timeout(timeout_s):
            while not condition():
                await self._next_change()

    async def _next_change(self) -> None:
        change = asyncio.get_running_loop().create_future()
        self._waiting.append(change)
        await change

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for change in waiting:
            if not change.done():
                change.set_result(None)
