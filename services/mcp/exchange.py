"""Owns the account of one conversation: what was asked, and how much is said without an answer.

A server may talk for ever, but not without answering: what it says between two answers that were
waited for is bounded, and comes to be allowed again with time.
"""

import re
from collections import OrderedDict
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

from services.mcp.allowances import Allowance
from services.mcp.errors import McpServerError
from services.mcp.lines import Line

MAX_ANSWER_BYTES: Final = 5 * 1024 * 1024
MAX_BYTES: Final = 16 * 1024 * 1024
"""What a server may say between two answers."""

TOO_LONG: Final = f"It answered more than {MAX_ANSWER_BYTES:,} bytes."

_MAX_MESSAGES: Final = 20_000
_MAX_STRAY_LINES: Final = 1_000
_MAX_ASKED: Final = 10_000
_REFILL_S: Final = 300.0
_ENDS: Final = 512
# Servers write the id first or last; what is in the middle is theirs to choose.
_FIRST: Final = re.compile(rb'\s*\{\s*("jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(\d{1,15})\s*,')
_LAST: Final = re.compile(rb',\s*"id"\s*:\s*(\d{1,15})\s*(,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$')


class Exchange:
    """Counts what goes to and fro. Errors: McpServerError for a server that floods."""

    def __init__(self) -> None:
        self._asked: OrderedDict[str, RequestId] = OrderedDict()
        self._bytes = Allowance(MAX_BYTES, refill_s=_REFILL_S)
        self._messages = Allowance(_MAX_MESSAGES, refill_s=_REFILL_S)
        self._strays = Allowance(_MAX_STRAY_LINES, refill_s=_REFILL_S)
        self.has_strayed = False

    def ask(self, message: JSONRPCMessage) -> None:
        """Note what goes to the server."""
        if isinstance(message, JSONRPCRequest):
            self._asked[str(message.id)] = message.id
            if len(self._asked) > _MAX_ASKED:
                # What was never answered; it was given up long ago.
                self._asked.popitem(last=False)

    def count(self, size: int, *, messages: int = 0) -> None:
        """Note that the server said something."""
        if not self._bytes.take(size):
            raise McpServerError(f"It wrote more than {MAX_BYTES:,} bytes without an answer.")
        if messages and not self._messages.take(messages):
            raise McpServerError(f"It wrote more than {_MAX_MESSAGES:,} lines without an answer.")

    def stray(self) -> None:
        """Note that it said what is no message."""
        # Servers print a greeting now and then; it is no reason to do without them.
        self.has_strayed = True
        if not self._strays.take(1):
            raise McpServerError("It writes what is no message of MCP to its standard output.")

    def hear(self, message: JSONRPCMessage) -> bool:
        """Say whether a message is worth reading: an answer nobody waits for is not."""
        if not isinstance(message, JSONRPCResponse | JSONRPCError):
            return True
        if self._asked.pop(str(message.id), None) is None:
            return False
        self._answered()
        return True

    def refuse(self, line: Line) -> JSONRPCError:
        """Return what takes the place of an answer that is too long to be read.

        Errors: McpServerError where it can't be told what it answers.
        """
        asked = self._asked_by(line.head, line.tail)
        if asked is None:
            raise McpServerError(f"It wrote a line of more than {MAX_ANSWER_BYTES:,} bytes.")
        return self._in_place_of(asked, ErrorData(code=INTERNAL_ERROR, message=TOO_LONG))

    def unread(self, line: Line) -> JSONRPCError | None:
        """Return what takes the place of an answer that is no message; None for another line."""
        asked = self._asked_by(line.text[:_ENDS], line.text[-_ENDS:])
        if asked is None:
            self.stray()
            return None
        return self._in_place_of(asked, ErrorData(code=PARSE_ERROR, message="not readable"))

    def _asked_by(self, head: bytes, tail: bytes) -> RequestId | None:
        """Return what was asked that a line answers, as far as its two ends tell."""
        found = _FIRST.match(head)
        number = found[2] if found else None
        if number is None:
            found = _LAST.search(tail)
            number = found[1] if found else None
        return None if number is None else self._asked.pop(number.decode(), None)

    def _in_place_of(self, asked: RequestId, error: ErrorData) -> JSONRPCError:
        self._answered()
        return JSONRPCError(jsonrpc="2.0", id=asked, error=error)

    def _answered(self) -> None:
        self._bytes.restore()
        self._messages.restore()
