"""Limits on what an MCP server may send: the length of a line, and how much between two answers.

A server may run indefinitely, but not without answering: what it sends between two answers that
were expected is limited, and the limits refill over time.
"""

import re
from asyncio import StreamReader
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from time import monotonic
from typing import Final

from mcp_types import (
    INTERNAL_ERROR,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
)

from schema.wire import count_json_items
from services.mcp.errors import McpServerError

MAX_ANSWER_BYTES: Final = 5 * 1024 * 1024
MAX_ITEMS: Final = 100_000
"""How many items the JSON of a response may have: a million take a worker seconds."""

MAX_BYTES: Final = 16 * 1024 * 1024
"""What a server may send between two answers."""

REFILL_S: Final = 300.0
TOO_LONG: Final = f"The response exceeds {MAX_ANSWER_BYTES:,} bytes or {MAX_ITEMS:,} items."

_MAX_MESSAGES: Final = 20_000
_MAX_STRAY_LINES: Final = 1_000
_MAX_PENDING: Final = 10_000
_CHUNK: Final = 64 * 1024
_ENDS: Final = 512
# Servers write the id first or last; what is in the middle is under their control.
_FIRST: Final = re.compile(rb'\s*\{\s*("jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(\d{1,15})\s*,')
_LAST: Final = re.compile(rb',\s*"id"\s*:\s*(\d{1,15})\s*(,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$')


def has_too_many_items(message: bytes | bytearray) -> bool:
    """Return whether the JSON of a message has more items than may be read."""
    return count_json_items(bytes(message), most=MAX_ITEMS) > MAX_ITEMS


class TokenBucket:
    """An amount that is used up and refills to `capacity` within `refill_s`."""

    def __init__(self, capacity: int, *, refill_s: float) -> None:
        self._capacity = capacity
        self._per_second = capacity / refill_s
        self._available = float(capacity)
        self._counted_at = monotonic()

    def take(self, amount: int) -> bool:
        """Use some of it, and return whether there was enough."""
        now = monotonic()
        refilled = (now - self._counted_at) * self._per_second
        self._available = min(self._capacity, self._available + refilled) - amount
        self._counted_at = now
        return self._available >= 0

    def debt_s(self, amount: int) -> float:
        """Use some of it, and return how long it takes until that was there."""
        self.take(amount)
        return max(0.0, -self._available / self._per_second)

    def refill(self) -> None:
        """Make the whole capacity available again."""
        self._available = self._capacity


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its end. One of too many bytes or items is empty, but for its two ends.

    Units: `size` counts the bytes that were read, whether they were kept or not.
    """

    text: bytes
    size: int
    head: bytes = b""
    tail: bytes = b""

    @property
    def is_too_long(self) -> bool:
        """Whether the line was not kept."""
        return bool(self.head)


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes of a line that has not ended yet; only their number is known."""

    size: int


async def bounded_lines(stream: StreamReader, *, max_bytes: int) -> AsyncIterator[Line | Part]:
    """Yield the lines of a stream, and each chunk of a line that is too long to be kept."""
    line = bytearray()
    head = b""
    while chunk := await stream.read(_CHUNK):
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            line += piece
            yield _line(line, head, max_bytes, len(piece) + 1)
            line, head = bytearray(), b""
        line += rest
        yield Part(len(rest))
        if len(line) > max_bytes:
            head = head or bytes(line[:_ENDS])
            del line[:-_ENDS]


def _line(line: bytearray, head: bytes, max_bytes: int, size: int) -> Line:
    if head or len(line) > max_bytes or has_too_many_items(line):
        return Line(b"", size, head or bytes(line[:_ENDS]), bytes(line[-_ENDS:]))
    return Line(bytes(line), size)


class Traffic:
    """The messages of one process: pending requests, and how much the server has sent.

    Errors: McpServerError for a server that floods.
    """

    def __init__(self) -> None:
        self._pending: OrderedDict[str, RequestId] = OrderedDict()
        self._bytes = TokenBucket(MAX_BYTES, refill_s=REFILL_S)
        self._messages = TokenBucket(_MAX_MESSAGES, refill_s=REFILL_S)
        self._stray_lines = TokenBucket(_MAX_STRAY_LINES, refill_s=REFILL_S)
        self.has_stray_lines = False

    def note_sent(self, message: JSONRPCMessage) -> None:
        """Note a message to the server."""
        if isinstance(message, JSONRPCRequest):
            self._pending[str(message.id)] = message.id
            if len(self._pending) > _MAX_PENDING:
                # The oldest was never answered, and was abandoned long ago.
                self._pending.popitem(last=False)

    def count_received(self, size: int, *, messages: int = 0) -> None:
        """Count what the server has sent."""
        if not self._bytes.take(size):
            raise McpServerError(
                f"The server sent more than {MAX_BYTES:,} bytes without answering."
            )
        if messages and not self._messages.take(messages):
            raise McpServerError(
                f"The server sent more than {_MAX_MESSAGES:,} lines without answering."
            )

    def count_stray_line(self) -> None:
        """Count a line that is not a message."""
        # Servers print a greeting now and then; that is no reason to disconnect.
        self.has_stray_lines = True
        if not self._stray_lines.take(1):
            raise McpServerError("The server writes non-MCP output to stdout.")

    def is_expected(self, message: JSONRPCMessage) -> bool:
        """Return whether to read a message: one that answers no pending request is dropped."""
        if not isinstance(message, JSONRPCResponse | JSONRPCError):
            return True
        if self._pending.pop(str(message.id), None) is None:
            return False
        self._refill()
        return True

    def oversized_answer(self, line: Line) -> JSONRPCError:
        """Return the error that replaces an answer that is too long to be read.

        Errors: McpServerError when the request that it answers can't be determined.
        """
        request_id = self._pop_answered(line.head, line.tail)
        if request_id is None:
            raise McpServerError(f"The server sent a line of more than {MAX_ANSWER_BYTES:,} bytes.")
        return self._error_answer(request_id, ErrorData(code=INTERNAL_ERROR, message=TOO_LONG))

    def unreadable_answer(self, line: Line) -> JSONRPCError | None:
        """Return the error that replaces an invalid answer; None for any other line."""
        request_id = self._pop_answered(line.text[:_ENDS], line.text[-_ENDS:])
        if request_id is None:
            self.count_stray_line()
            return None
        return self._error_answer(request_id, ErrorData(code=PARSE_ERROR, message="not readable"))

    def _pop_answered(self, head: bytes, tail: bytes) -> RequestId | None:
        """Return the pending request that a line answers, as far as its two ends show."""
        found = _FIRST.match(head)
        number = found[2] if found else None
        if number is None:
            found = _LAST.search(tail)
            number = found[1] if found else None
        return None if number is None else self._pending.pop(number.decode(), None)

    def _error_answer(self, request_id: RequestId, error: ErrorData) -> JSONRPCError:
        self._refill()
        return JSONRPCError(jsonrpc="2.0", id=request_id, error=error)

    def _refill(self) -> None:
        self._bytes.refill()
        self._messages.refill()
