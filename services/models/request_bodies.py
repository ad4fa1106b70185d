"""Bodies of requests that hold stored files: sent in pieces, never held whole.

A prompt names such a file by a `StoredContent`. It becomes base64 on its way into the connection,
a piece at a time, so that neither memory nor the event loop notices its size.
"""

import json
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from secrets import token_hex
from typing import Any, Final, TypeAlias
from uuid import UUID

_JSON: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class ContentUnavailableError(Exception):
    """A stored file can't be read now; one that is `lost` never can."""

    def __init__(self, *, lost: UUID | None = None) -> None:
        super().__init__("A stored file can't be read.")
        self.lost = lost


class StoredContent(str):
    """The place of a file's base64 in a prompt. Its text is random: nothing else is it by chance.

    Units: `size` is in bytes.
    """

    __slots__ = ("file_id", "size", "storage", "variant")

    file_id: UUID
    size: int
    storage: str
    variant: str

    @classmethod
    def of(cls, file_id: UUID, *, size: int, storage: str, variant: str) -> "StoredContent":
        """Return the place of a file's content."""
        place = cls(f"stored content {token_hex(16)}")
        place.file_id, place.size = file_id, size
        place.storage, place.variant = storage, variant
        return place


ContentReader: TypeAlias = Callable[[StoredContent], AsyncIterator[bytes]]
"""Yields a stored file in pieces of any length."""


class StreamedBody:
    """The JSON of a request, with stored files in their places. Units: `size` is in bytes."""

    def __init__(self, body: Mapping[str, Any], read: ContentReader) -> None:
        rest = _JSON.encode(body)
        self._read = read
        self._parts: list[tuple[bytes, StoredContent | None]] = []
        for content in stored_contents(body):
            before, _, rest = rest.partition(str(content))
            self._parts.append((before.encode(), content))
        self._parts.append((rest.encode(), None))

    @property
    def size(self) -> int:
        """The length of the body."""
        return sum(len(text) + _encoded_size(content) for text, content in self._parts)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the body in pieces. Errors: ContentUnavailableError."""
        for text, content in self._parts:
            if text:
                yield text
            if content is not None:
                async for piece in self._encoded(content):
                    yield piece

    async def _encoded(self, content: StoredContent) -> AsyncIterator[bytes]:
        held, left = b"", content.size
        async for piece in self._read(content):
            left -= len(piece)
            held += piece
            whole = len(held) - len(held) % 3
            yield b64encode(held[:whole])
            held = held[whole:]
        if left:
            raise ContentUnavailableError(lost=content.file_id)
        yield b64encode(held)


def encoded_body(
    body: Mapping[str, Any], read: ContentReader | None
) -> tuple[bytes | StreamedBody, int]:
    """Return a request's JSON and its length in bytes, in pieces if it has stored files."""
    if read is None or next(stored_contents(body), None) is None:
        encoded = _JSON.encode(body).encode()
        return encoded, len(encoded)
    streamed = StreamedBody(body, read)
    return streamed, streamed.size


def stored_contents(body: Mapping[str, Any]) -> Iterator[StoredContent]:
    """Yield what a request has of stored files, in the order in which its JSON has it."""
    for message in body.get("messages") or ():
        yield from _within(message["content"])


def _within(content: Any) -> Iterator[StoredContent]:  # noqa: ANN401 -- blocks, or a text
    for block in () if isinstance(content, str) else content:
        data = block["source"].get("data") if "source" in block else None
        if isinstance(data, StoredContent):
            yield data
        elif block["type"] == "tool_result":
            yield from _within(block.get("content") or ())


def _encoded_size(content: StoredContent | None) -> int:
    return 0 if content is None else -(-content.size // 3) * 4
