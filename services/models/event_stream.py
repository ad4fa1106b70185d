"""Reads the body of a model's response: bounded bytes to server-sent events to JSON objects.

The provider decides what stands in the body, how it is cut, and when it ends. Nothing here holds
more of it than a line, or the event loop longer than a few milliseconds.
Source: server-sent events, WHATWG HTML, section 9.2; RFC 9110, section 8.4 (content codings).
"""

import asyncio
import json
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from time import thread_time
from typing import Any, Final

import httpx2

from schema.wire import count_json_items
from services.models.failures import ModelCallError, broken_stream, runaway

MAX_LINE_BYTES: Final = 1024 * 1024
"""The longest line and event."""

MAX_JSON_ITEMS: Final = 20_000
"""How many commas and brackets an answer may have beyond those of its plain events."""

MAX_ERROR_BYTES: Final = 64 * 1024
"""How much of an error response is read."""

_BASE_BYTES: Final = 2 * 1024 * 1024
# A token is about 4 bytes of text, in an event of its own with about 120 around it.
_BYTES_PER_TOKEN: Final = 512

_PIECE_BYTES: Final = 4 * 1024
# What a chunk counts as at least: reading it costs more than its bytes.
_CHUNK_BYTES: Final = 64
_PAUSE_AFTER_CPU_S: Final = 0.001
# The rest of the body behind the last event: reading it lets the connection be used again.
_REMAINS_S: Final = 1.0

_DONE: Final = "[DONE]"  # The last event of OpenAI's streams, which gateways leave standing.
# A delta has about eight.
_PLAIN_ITEMS: Final = 16
_BOM: Final = b"\xef\xbb\xbf"


class TooManyItemsError(ValueError):
    """JSON has more items than may be parsed."""


def parse_json(text: str, *, most: int = MAX_JSON_ITEMS) -> tuple[Any, int]:
    """Return what the text says, and of how many items; a million take half a second to parse.

    Errors: ValueError for what is no JSON; TooManyItemsError.
    """
    items = count_json_items(text.encode("utf-8", "surrogatepass"), most=most)
    if items > most:
        raise TooManyItemsError
    try:
        return json.loads(text), items
    except RecursionError:
        raise ValueError("nested too deeply") from None


def max_answer_bytes(max_tokens: int) -> int:
    """Return how many bytes an answer of so many tokens may have on the wire, generously."""
    return _BASE_BYTES + _BYTES_PER_TOKEN * max_tokens


class BodyReader:
    """Reads a response's body in small pieces, decoded, as long as it stays within its bounds.

    When the pieces end, `failure` says why they ended early, if they did.
    Units: `deadline` in the event loop's time.
    """

    def __init__(self, response: httpx2.Response, *, max_bytes: int, deadline: float) -> None:
        self.failure: ModelCallError | None = None
        self._response = response
        self._bytes_left = max_bytes
        self._deadline = deadline
        self._loop = asyncio.get_running_loop()
        self._cpu_s = thread_time()

    def hurry(self) -> None:
        """Leave only a moment for the rest: what matters has arrived."""
        self._deadline = min(self._deadline, self._loop.time() + _REMAINS_S)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield the body, at most 4 KB at once; other tasks run in between."""
        chunks = self._response.aiter_raw()
        try:
            decoder = _Decoder(self._response.headers.get("content-encoding", ""))
            while (chunk := await self._next(chunks)) is not None:
                for piece in decoder.decode(chunk):
                    self._count(len(piece))
                    if piece:
                        yield piece
                    await self._pause()
        except TimeoutError:
            self.failure = runaway()
        except (httpx2.HTTPError, httpx2.StreamError, zlib.error):
            self.failure = broken_stream()
        except ModelCallError as error:
            self.failure = error

    async def _next(self, chunks: AsyncIterator[bytes]) -> bytes | None:
        # A body that is always ready never lets the timeout run.
        if self._loop.time() > self._deadline:
            raise TimeoutError
        async with asyncio.timeout_at(self._deadline):
            chunk = await anext(chunks, None)
        if chunk is not None:
            self._count(max(0, _CHUNK_BYTES - len(chunk)))
        return chunk

    def _count(self, size: int) -> None:
        self._bytes_left -= size
        if self._bytes_left < 0:
            raise runaway()

    async def _pause(self) -> None:
        """Let others run if this thread has been busy; waiting for the provider costs no CPU."""
        now = thread_time()
        if now - self._cpu_s > _PAUSE_AFTER_CPU_S:
            await asyncio.sleep(0)
            self._cpu_s = thread_time()


class _Decoder:
    """Undoes the content coding piece by piece: a few bytes may stand for gigabytes."""

    def __init__(self, coding: str) -> None:
        coding = coding.strip().lower()
        if coding not in {"", "identity", "gzip", "x-gzip", "deflate"}:
            raise broken_stream()
        self._inflater = None if coding in {"", "identity"} else _inflater()

    def decode(self, chunk: bytes) -> Iterator[bytes]:
        if self._inflater is None:
            for start in range(0, len(chunk), _PIECE_BYTES):
                yield chunk[start : start + _PIECE_BYTES]
            return
        while chunk:
            yield self._inflater.decompress(chunk, _PIECE_BYTES)
            chunk = self._inflater.unconsumed_tail
            if self._inflater.eof:
                # Gzip may have several members.
                chunk, self._inflater = self._inflater.unused_data, _inflater()


def _inflater() -> "zlib._Decompress":
    # 32: gzip or zlib, whichever it is.
    return zlib.decompressobj(32 + 15)


async def read_json(response: httpx2.Response, *, deadline: float) -> object:
    """Return the JSON of a short response, or its text; what arrived of it within the bounds."""
    reader = BodyReader(response, max_bytes=MAX_ERROR_BYTES, deadline=deadline)
    text = b"".join([piece async for piece in reader.pieces()]).decode(errors="replace")
    try:
        return parse_json(text)[0]
    except ValueError:
        return text


class AnswerEvents:
    """Finds the events of an answer in the pieces of its body.

    A body that is one JSON object instead is taken as a message that came whole.
    Errors: ModelCallError for a line or items beyond the bounds, or an event that is no JSON.
    """

    def __init__(self) -> None:
        self._lines = _Lines()
        self._name = ""
        self._data: list[bytes] = []
        self._size = 0
        self._json: bytearray | None = None
        self._has_begun = False
        self._items_left = MAX_JSON_ITEMS

    def feed(self, piece: bytes) -> Iterator[dict[str, Any]]:
        """Yield the events that this piece ends."""
        if not self._has_begun and (begins := piece.lstrip(_BOM + b" \t\r\n")):
            self._has_begun = True
            # No field of an event stream begins like this.
            if begins.startswith(b"{"):
                self._json = bytearray()
        if self._json is not None:
            self._json += piece
            _check_size(len(self._json))
            return
        for line in self._lines.feed(piece):
            if (line or self._data or self._name) and (event := self._take(line)):
                yield event

    def end(self) -> Iterator[dict[str, Any]]:
        """Yield what stands at the end of the body without a blank line behind it."""
        if self._json is not None:
            yield from _events_of_whole(self._parsed(bytes(self._json).removeprefix(_BOM), ""))
            return
        for line in (self._lines.rest(), b""):
            if event := self._take(line):
                yield event

    def _take(self, line: bytes) -> dict[str, Any] | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        if field == b"data":
            self._size += len(value)
            _check_size(self._size)
            self._data.append(value.removeprefix(b" "))
        elif field == b"event":
            self._name = value.removeprefix(b" ")[:64].decode(errors="replace")
        return None

    def _dispatch(self) -> dict[str, Any] | None:
        name, data = self._name, b"\n".join(self._data)
        self._name, self._size = "", 0
        self._data.clear()
        return self._parsed(data, name) if data or name else None

    def _parsed(self, data: bytes, name: str) -> dict[str, Any]:
        """Return the event; its type is the one that it says, else that of its line `event:`.

        Errors and pings are known by either.
        """
        text = data.decode(errors="replace")
        if name == "ping" or text.strip() == _DONE:
            return {"type": "ping"}
        try:
            event, items = parse_json(text or "{}", most=self._items_left + _PLAIN_ITEMS)
            self._items_left -= max(0, items - _PLAIN_ITEMS)
        except TooManyItemsError:
            raise runaway() from None
        except ValueError:
            if name != "error":
                raise broken_stream() from None
            event = {"error": text}
        if not isinstance(event, dict):
            event = {"error": str(event)[:_PIECE_BYTES]} if name == "error" else {}
        kind = event.get("type")
        if name == "error" or ("error" in event and (not isinstance(kind, str) or not kind)):
            event["type"] = "error"
        elif not isinstance(kind, str) or not kind:
            event["type"] = name
        return event


def _events_of_whole(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the events of a message that a gateway sent whole, though asked for a stream."""
    if message["type"] != "message":
        yield message
        return
    yield {"type": "message_start", "message": message}
    delta = {"stop_reason": message.get("stop_reason")}
    yield {"type": "message_delta", "delta": delta, "usage": message.get("usage")}
    yield {"type": "message_stop"}


class _Lines:
    """Splits pieces into lines; a line ends with CR LF, LF or CR."""

    def __init__(self) -> None:
        self._begun = bytearray()
        self._after_cr = False
        self._is_first = True

    def feed(self, piece: bytes) -> Iterator[bytes]:
        if self._after_cr:
            piece, self._after_cr = piece.removeprefix(b"\n"), False
        if b"\r" in piece:
            self._after_cr = piece.endswith(b"\r")
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        first, *others = piece.split(b"\n")
        self._begun += first
        _check_size(len(self._begun))
        if others:
            yield self.rest()
            yield from others[:-1]
            self._begun += others[-1]

    def rest(self) -> bytes:
        line = bytes(self._begun)
        self._begun.clear()
        if self._is_first:
            self._is_first = False
            return line.removeprefix(_BOM)
        return line


def _check_size(size: int) -> None:
    if size > MAX_LINE_BYTES:
        raise runaway()
