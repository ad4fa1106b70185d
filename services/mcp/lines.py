"""Owns reading lines of a foreign program with a bound on what of them is kept in memory."""

from asyncio import StreamReader
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

_CHUNK: Final = 64 * 1024
_END: Final = 512


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its end. One that was too long is empty; its two ends say what it was.

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
    """Bytes of a line that has not ended; nothing but their number is known."""

    size: int


async def bounded_lines(stream: StreamReader, *, longest: int) -> AsyncIterator[Line | Part]:
    """Yield the lines of a stream, and each chunk of one that is too long to be kept."""
    line = bytearray()
    head = b""
    while chunk := await stream.read(_CHUNK):
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            line += piece
            yield _line(line, head, longest, len(piece) + 1)
            line, head = bytearray(), b""
        line += rest
        yield Part(len(rest))
        if len(line) > longest:
            head = head or bytes(line[:_END])
            del line[:-_END]


def _line(line: bytearray, head: bytes, longest: int, size: int) -> Line:
    if head or len(line) > longest:
        return Line(b"", size, head or bytes(line[:_END]), bytes(line[-_END:]))
    return Line(bytes(line), size)
