"""Owns what a model is told of a tool's result: text, images, and words for what it can't see.

All of it is a stranger's: bounded, made storable, and never trusted to be what it says.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from mcp_types import (
    AudioContent,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from services.mcp.images import Image, read_image
from services.mcp.words import bounded
from services.tools.definition import ToolOutcome

MAX_IMAGES: Final = 4
MAX_CHARS: Final = 400_000

_MAX_PIECES: Final = 500
_MAX_RESOURCE_CHARS: Final = 100_000
_MAX_NAME: Final = 300
_NOTHING: Final = "The tool ended without any output."


def outcome_of(result: CallToolResult, *, remark: str | None = None) -> ToolOutcome:
    """Return what goes back to the model; a remark of ours comes first."""
    told = _Told()
    if remark is not None:
        told.say(remark)
    for piece in result.content[:_MAX_PIECES]:
        told.take(piece)
    if len(result.content) > _MAX_PIECES:
        told.say(f"({len(result.content) - _MAX_PIECES} more pieces are left out.)")
    structured = result.structured_content
    if structured is not None and not _is_said(structured, list(_texts(result))):
        told.say(_compact(structured))
    return told.outcome(is_error=result.is_error)


@dataclass(slots=True)
class _Told:
    """What is told so far, piece by piece."""

    _pieces: list[str | Image] = field(default_factory=list)
    _left: int = MAX_CHARS
    _images: int = 0

    def take(self, piece: ContentBlock) -> None:
        match piece:
            case TextContent(text=text):
                self.say(text)
            case ImageContent(data=data):
                self._show(data)
            case AudioContent(mime_type=kind, data=data):
                self.say(f"(Audio, {_named(kind)}, {_decoded_size(data):,} bytes: left out.)")
            case ResourceLink(uri=uri, name=name):
                self.say(f"(A resource to be read elsewhere: {_named(name)}, {_named(uri)})")
            case EmbeddedResource():
                self._inline(piece)

    def say(self, words: str) -> None:
        if self._left <= 0:
            return
        text = bounded(words, self._left)
        self._left -= len(text)
        self._pieces.append(text)

    def outcome(self, *, is_error: bool) -> ToolOutcome:
        pieces = [piece for piece in self._pieces if piece != ""]
        output = "\n".join(map(_in_words, pieces)) or _NOTHING
        blocks = tuple(map(_block, pieces)) if self._images else ()
        return ToolOutcome(output=output, is_error=is_error, blocks=blocks)

    def _show(self, data: str) -> None:
        if self._images == MAX_IMAGES:
            self.say(f"(An image is left out: {MAX_IMAGES} are shown at most.)")
            return
        image = read_image(data)
        if isinstance(image, str):
            self.say(f"(An image is left out: {image}.)")
        else:
            self._images += 1
            self._pieces.append(image)

    def _inline(self, piece: EmbeddedResource) -> None:
        resource = piece.resource
        named = _named(resource.uri)
        if isinstance(resource, TextResourceContents):
            self.say(f"Resource {named}:\n{bounded(resource.text, _MAX_RESOURCE_CHARS)}")
        elif (resource.mime_type or "").startswith("image/"):
            self._show(resource.blob)
        else:
            kind = _named(resource.mime_type or "of no known kind")
            size = _decoded_size(resource.blob)
            self.say(f"(Resource {named}, {kind}, {size:,} bytes: left out.)")


def _in_words(piece: str | Image) -> str:
    if isinstance(piece, str):
        return piece
    return f"(An image, {piece.media_type}, {piece.size:,} bytes)"


def _block(piece: str | Image) -> dict[str, Any]:
    return {"type": "text", "text": piece} if isinstance(piece, str) else piece.block()


def _named(words: object) -> str:
    return bounded(str(words), _MAX_NAME)


def _decoded_size(data: str) -> int:
    return len(data) * 3 // 4


def _texts(result: CallToolResult) -> Iterator[str]:
    for piece in result.content[:_MAX_PIECES]:
        if isinstance(piece, TextContent):
            yield piece.text


def _is_said(structured: object, texts: list[str]) -> bool:
    """Say whether the text holds it already, as servers are asked to do for older clients."""
    read = [_read(text) for text in texts]
    wanted = [structured]
    if isinstance(structured, dict) and structured.keys() == {"result"}:
        # How servers wrap what is no object.
        wanted.append(structured["result"])
    return any(value in read or value in texts or value in (read, texts) for value in wanted)


def _read(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _compact(structured: object) -> str:
    try:
        return json.dumps(structured, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return "[Its structured content holds numbers that are none.]"
