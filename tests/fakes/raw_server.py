"""A server on loopback that answers whatever bytes a test says, and counts its connections."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

_PAUSE_S = 0.02

Answer = Callable[["RawServer", asyncio.StreamWriter], Awaitable[None]]
"""Writes the answer to a request; when it returns, the next request is awaited."""


@dataclass
class RawServer:
    """The requests to a server, and the number of connections."""

    port: int = 0
    scheme: str = "http"
    accepted: int = 0
    requests: list[bytes] = field(default_factory=list)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a client closes a connection."""

    @property
    def url(self) -> str:
        """Its address."""
        return f"{self.scheme}://127.0.0.1:{self.port}/"


def answered(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """Return an answer as it is on the wire."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def saying(wire: bytes) -> Answer:
    """Return what answers every request with these bytes."""

    async def answer(_: RawServer, writer: asyncio.StreamWriter) -> None:
        writer.write(wire)

    return answer


@asynccontextmanager
async def serving_raw(
    answer: Answer, *, tls: ssl.SSLContext | None = None, port: int = 0
) -> AsyncIterator[RawServer]:
    """Serve while the block runs, on a free port unless one is given."""
    server = RawServer(scheme="https" if tls else "http")
    connections: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.accepted += 1
        task = asyncio.create_task(_converse(server, answer, reader, writer))
        connections.add(task)

    listening = await asyncio.start_server(accept, "127.0.0.1", port, ssl=tls, backlog=512)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


@asynccontextmanager
async def speaking_plain_text() -> AsyncIterator[int]:
    """Serve on the port that is yielded what answers a TLS handshake as HTTP servers do."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(16)
        writer.write(answered(b"", status="400 Bad Request"))
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


async def _converse(
    server: RawServer, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    hanging_up: asyncio.Task[None] | None = None
    try:
        while (request := await _request(reader)) is not None:
            server.requests.append(request)
            answering = asyncio.ensure_future(answer(server, writer))
            hanging_up = asyncio.create_task(_until_hung_up(reader))
            await asyncio.wait({answering, hanging_up}, return_when=asyncio.FIRST_COMPLETED)
            answering.cancel()
            hanging_up.cancel()
            await asyncio.gather(answering, hanging_up, return_exceptions=True)
            with suppress(ConnectionError):
                await writer.drain()
            if writer.is_closing():
                break
    finally:
        server.hung_up.set()
        writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


async def _until_hung_up(reader: asyncio.StreamReader) -> None:
    with suppress(ConnectionError):
        # Reading would consume the next request.
        while reader.exception() is None and not reader.at_eof():  # noqa: ASYNC110 -- a reader has no event for its end
            await asyncio.sleep(_PAUSE_S)


async def _request(reader: asyncio.StreamReader) -> bytes | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        return head + await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
