"""Bodies of servers' responses: bounded, and repaired where the SDK would lose a whole message.

JavaScript cuts texts in the middle of a character beyond U+FFFF, and writes the half that is left
as an escape, which the SDK's parser refuses. Programs in other languages write a byte order mark.
"""

import re
from codecs import BOM_UTF8
from collections.abc import AsyncIterator
from typing import Final

import httpx2

from services.mcp.limits import MAX_ANSWER_BYTES
from services.outgoing.errors import TooLargeError
from services.outgoing.transport import weight_of

_HALF: Final = re.compile(rb"\\u[dD][89a-fA-F]")
# All escapes, so that none begins with the backslash of another.
_ESCAPE: Final = re.compile(
    rb"\\(?:(u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_LONGEST_LINE: Final = 1024 * 1024


def repaired(message: bytes) -> bytes:
    """Return JSON without a byte order mark, and with U+FFFD for halves of characters."""
    message = message.removeprefix(BOM_UTF8)
    if _HALF.search(message) is None:
        return message
    return _ESCAPE.sub(lambda escape: rb"\ufffd" if escape[2] else escape[0], message)


class RepairedLines:
    """Repairs a stream of lines; the last one is held until it ends, or gets too long."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, chunk: bytes) -> bytes:
        """Return what can be passed on."""
        end = max(chunk.rfind(b"\n"), chunk.rfind(b"\r")) + 1
        if not end and len(self._held) + len(chunk) > _LONGEST_LINE:
            end = len(chunk)
        if not end:
            self._held += chunk
            return b""
        lines = bytes(self._held) + chunk[:end]
        self._held = bytearray(chunk[end:])
        return repaired(lines)


def chunks_of(response: httpx2.Response) -> AsyncIterator[bytes]:
    """Return the chunks of a body as they arrive."""
    stream = response.stream
    if not isinstance(stream, httpx2.AsyncByteStream):  # pragma: no cover -- the library's own
        raise TypeError("the stream is not asynchronous")
    return aiter(stream)


async def read_body(response: httpx2.Response) -> bytes:
    """Return a whole body, repaired. Errors: TooLargeError."""
    content, weight = bytearray(), 0
    try:
        async for chunk in chunks_of(response):
            content += chunk
            weight += weight_of(chunk)
            if weight > MAX_ANSWER_BYTES:
                raise TooLargeError(MAX_ANSWER_BYTES)
    finally:
        await response.aclose()
    return repaired(bytes(content))
