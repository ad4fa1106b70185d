"""One client's connection: writes, and waits that end as soon as the client is gone."""

import asyncio
from typing import Self

from starlette.types import Receive, Scope, Send

from tests.fakes.scripted_model.request_log import RequestRecord

CUT_CONNECTION = "cut_connection"


class AnswerEndedError(Exception):
    """The answer ended before its last event: the client left, or the script wanted it so."""


class Connection:
    """The connection that one answer is played to; use it as an async context manager.

    With `join_events` what is written goes out together where no delay separates it; otherwise
    each delta is a write of its own.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        record: RequestRecord,
        join_events: bool,
    ) -> None:
        self._scope = scope
        self._send = send
        self._record = record
        self._join_events = join_events
        self._unsent: list[bytes] = []
        self._gone = asyncio.ensure_future(_until_disconnect(receive))

    async def __aenter__(self) -> Self:
        self._gone.add_done_callback(self._note_disconnect)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._gone.remove_done_callback(self._note_disconnect)
        self._gone.cancel()

    async def start(self, status: int, headers: dict[str, str]) -> None:
        """Send the head of the response."""
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    def write(self, data: bytes) -> None:
        """Append data to the pending output."""
        self._unsent.append(data)

    async def flush(self) -> None:
        """Send what was written."""
        if self._unsent:
            body = b"".join(self._unsent)
            self._unsent.clear()
            await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def finish(self) -> None:
        """Send what was written and end the response."""
        body = b"".join(self._unsent)
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def cut(self) -> None:
        """Send what was written, then close the socket in the middle of the response.

        Errors: AnswerEndedError, always; ConnectionAbortedError under a server that is not ours.
        """
        await self.flush()
        close = self._scope.get("state", {}).get(CUT_CONNECTION)
        if close is None:
            raise ConnectionAbortedError("The script cuts the connection.")
        close()
        await self.until_gone()

    async def wait(self, seconds: float) -> None:
        """Let this time pass. Errors: AnswerEndedError when the client disconnects."""
        if seconds > 0:
            await self.flush()
            await asyncio.wait({self._gone}, timeout=seconds)
        elif not self._join_events:
            await self.flush()
            await asyncio.sleep(0)
        self._check()

    async def wait_for(self, event: asyncio.Event) -> None:
        """Wait for the event. Errors: AnswerEndedError when the client leaves before it."""
        await self.flush()
        waiter = asyncio.ensure_future(event.wait())
        await asyncio.wait({self._gone, waiter}, return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        self._check()

    async def until_gone(self) -> None:
        """Stay silent until the client leaves. Errors: AnswerEndedError, always."""
        await self.flush()
        await asyncio.wait({self._gone})
        self._check()

    def _check(self) -> None:
        # The callback that notes it may run only after this task has gone on.
        if self._gone.done():
            self._record.disconnect()
            raise AnswerEndedError

    def _note_disconnect(self, _: object) -> None:
        self._record.disconnect()


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
