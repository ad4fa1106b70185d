"""A crowd of clients who follow turns, on bare sockets: it costs the machine little."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

_RETRY_S: Final = 0.1
_WITHIN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Followed:
    """A turn and its user's token; `after` is the last event that was seen."""

    turn_id: str
    token: str
    after: str = ""


class Follower:
    """One connection that follows a turn."""

    def __init__(
        self, status: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.status = status
        self.served_at = time.monotonic()
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, api: str, turn: Followed) -> Self:
        """Ask for the stream, and return when its head has come; a refused connection is retried.

        Errors: OSError for a connection that breaks before that.
        """
        reader, writer = await _connect(api)
        writer.write(
            f"GET /api/v1/turns/{turn.turn_id}/events HTTP/1.1\r\nHost: everturn\r\n"
            f"Authorization: Bearer {turn.token}\r\nLast-Event-ID: {turn.after}\r\n"
            "\r\n".encode()
        )
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError from error
        return cls(int(head.split(b" ", 2)[1]), reader, writer)

    async def to_end(self) -> bytes:
        """Return all that comes until the connection closes or `done` has come."""
        seen = bytearray()
        with suppress(ConnectionError):
            while b"event: done" not in seen and (piece := await self._reader.read(1 << 16)):
                seen += piece
        self.close()
        return bytes(seen)

    def close(self) -> None:
        """Leave."""
        self._writer.transport.abort()


async def _connect(api: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect, as soon as somebody listens."""
    while True:
        try:
            return await asyncio.open_connection(urlsplit(api).hostname, urlsplit(api).port)
        except ConnectionError:
            await asyncio.sleep(_RETRY_S)


async def follow_all(api: str, turns: Sequence[Followed]) -> list[Follower]:
    """Open all streams at once, and return when each has its head."""
    async with asyncio.timeout(_WITHIN_S):
        return await asyncio.gather(*(Follower.open(api, turn) for turn in turns))
