"""Results of MCP tools as the model reads them: text, images, and a note for anything else.

All of it is untrusted: bounded, made storable, and never assumed to be what it claims to be. The
Messages API rejects a whole request for one invalid or oversized image.
"""

import binascii
import json
import struct
from base64 import b64decode, b64encode
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

from services.mcp.errors import bounded
from services.tools.definition import ToolOutcome
from services.tools.masks import NO_SECRETS, SecretMask

MAX_IMAGES: Final = 4
MAX_IMAGE_BYTES: Final = 3 * 1024 * 1024
MAX_CHARS: Final = 400_000

_MAX_BLOCKS: Final = 500
_MAX_RESOURCE_CHARS: Final = 100_000
_MAX_NAME: Final = 300
_NO_OUTPUT: Final = "The tool returned no output."
_MAX_SIDE: Final = 7_680
_WEBP_HEAD: Final = 30
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""The markers of JPEG that hold the size of the image."""


def outcome_of(
    result: CallToolResult, *, remark: str | None = None, mask: SecretMask = NO_SECRETS
) -> ToolOutcome:
    """Return the outcome for the model, masked; a remark of ours comes first."""
    output = _Output(mask)
    if remark is not None:
        output.add_text(remark)
    structured = result.structured_content
    says_all = structured is not None and _says_all(structured, result)
    for block in result.content[:_MAX_BLOCKS]:
        if not (says_all and isinstance(block, TextContent)):
            output.add(block)
    if len(result.content) > _MAX_BLOCKS:
        output.add_text(f"({len(result.content) - _MAX_BLOCKS} more content blocks omitted.)")
    if structured is not None and (says_all or not _is_in_content(structured, result)):
        output.add_text(_compact(structured))
    return output.outcome(is_error=result.is_error)


@dataclass(frozen=True, slots=True)
class Image:
    """An image that the Messages API accepts. Units: `size` is in bytes."""

    media_type: str
    data: str
    size: int

    def block(self) -> dict[str, object]:
        """Return it as a content block of the Messages API."""
        source = {"type": "base64", "media_type": self.media_type, "data": self.data}
        return {"type": "image", "source": source}


@dataclass(slots=True)
class _Output:
    """The output so far."""

    _mask: SecretMask
    _pieces: list[str | Image] = field(default_factory=list)
    _chars_left: int = MAX_CHARS
    _images: int = 0

    def add(self, block: ContentBlock) -> None:
        match block:
            case TextContent(text=text):
                self.add_text(text)
            case ImageContent(data=data):
                self._add_image(data)
            case AudioContent(mime_type=kind, data=data):
                self.add_text(
                    f"(Audio omitted: {self._short(kind)}, {_decoded_size(data):,} bytes.)"
                )
            case ResourceLink(uri=uri, name=name):
                self.add_text(f"(Link to a resource: {self._short(name)}, {self._short(uri)})")
            case EmbeddedResource():
                self._add_resource(block)

    def add_text(self, text: str) -> None:
        if self._chars_left <= 0:
            return
        text = self._bounded(text, self._chars_left)
        self._chars_left -= len(text)
        self._pieces.append(text)

    def outcome(self, *, is_error: bool) -> ToolOutcome:
        pieces = [piece for piece in self._pieces if piece != ""]
        output = "\n".join(map(_as_text, pieces)) or _NO_OUTPUT
        blocks = tuple(map(_as_block, pieces)) if self._images else ()
        return ToolOutcome(output=output, is_error=is_error, blocks=blocks)

    def _add_image(self, data: str) -> None:
        if self._images == MAX_IMAGES:
            self.add_text(f"(Image omitted: the limit is {MAX_IMAGES} images.)")
            return
        image = read_image(data)
        if isinstance(image, str):
            self.add_text(f"(Image omitted: {image}.)")
        else:
            self._images += 1
            self._pieces.append(image)

    def _add_resource(self, block: EmbeddedResource) -> None:
        resource = block.resource
        uri = self._short(resource.uri)
        if isinstance(resource, TextResourceContents):
            self.add_text(f"Resource {uri}:\n{self._bounded(resource.text, _MAX_RESOURCE_CHARS)}")
        elif (resource.mime_type or "").startswith("image/"):
            self._add_image(resource.blob)
        else:
            kind = self._short(resource.mime_type or "unknown type")
            size = _decoded_size(resource.blob)
            self.add_text(f"(Resource omitted: {uri}, {kind}, {size:,} bytes.)")

    def _short(self, text: object) -> str:
        return self._bounded(str(text), _MAX_NAME)

    def _bounded(self, text: str, max_chars: int) -> str:
        return bounded(self._mask.cut(text, max_chars), max_chars)


def _as_text(piece: str | Image) -> str:
    if isinstance(piece, str):
        return piece
    return f"(Image: {piece.media_type}, {piece.size:,} bytes)"


def _as_block(piece: str | Image) -> dict[str, Any]:
    return {"type": "text", "text": piece} if isinstance(piece, str) else piece.block()


def _decoded_size(data: str) -> int:
    return len(data) * 3 // 4


def _texts(result: CallToolResult) -> Iterator[str]:
    for block in result.content[:_MAX_BLOCKS]:
        if isinstance(block, TextContent):
            yield block.text


def _is_in_content(structured: object, result: CallToolResult) -> bool:
    """Return whether the content repeats it, as servers are asked to do for older clients.

    An object with a single property counts as that property's value: servers wrap so what is not
    an object, under various names.
    """
    if not result.content:
        return False
    wanted = [structured]
    if isinstance(structured, dict) and len(structured) == 1:
        wanted += structured.values()
    texts = list(_texts(result))
    parsed = [_parsed(text) for text in texts]
    blocks = [_as_listed(block) for block in result.content[:_MAX_BLOCKS]]
    seen = (*texts, "\n".join(texts), *parsed, texts, parsed, blocks)
    return any(_equal(value, form) for value in wanted for form in seen)


def _says_all(structured: object, result: CallToolResult) -> bool:
    """Return whether it has all texts of the content among its own, and says more than they."""
    texts = [text.strip() for text in _texts(result) if text.strip()]
    if not texts or _is_in_content(structured, result):
        return False
    own = {text.strip() for text in _own_texts(structured)}
    return own.issuperset(texts)


def _own_texts(structured: object) -> Iterator[str]:
    waiting = [structured]
    for value in waiting:
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _as_listed(block: ContentBlock) -> object:
    """Return a block as servers repeat it in their structured content; texts are compared apart."""
    if isinstance(block, TextContent | ImageContent | AudioContent):
        return block.model_dump(by_alias=True, exclude_none=True, mode="json")
    return None


def _equal(one: object, other: object) -> bool:
    """Return whether two values are the same JSON: `1` is `1.0`, but not `true`."""
    waiting = [(one, other)]
    for left, right in waiting:
        if isinstance(left, str) and isinstance(right, str):
            if left.strip() != right.strip():
                return False
        elif isinstance(left, dict) and isinstance(right, dict):
            if left.keys() != right.keys():
                return False
            waiting += ((left[name], right[name]) for name in left)
        elif isinstance(left, list) and isinstance(right, list):
            if len(left) != len(right):
                return False
            waiting += zip(left, right, strict=True)
        elif isinstance(left, bool) is not isinstance(right, bool) or left != right:
            return False
    return True


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _compact(structured: object) -> str:
    try:
        return json.dumps(structured, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return "[The structured content contains NaN or Infinity.]"


def read_image(data: str) -> Image | str:
    """Return the image that base64 holds, or what is wrong with it.

    Its type is determined by its bytes, whatever type the server declares.
    """
    if len(data) > MAX_IMAGE_BYTES * 4 // 3 + 4:
        return f"larger than {MAX_IMAGE_BYTES // 2**20} MiB"
    try:
        content = b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return "invalid base64"
    try:
        found = _type_and_size(content)
    except (struct.error, IndexError):
        found = None
    if found is None:
        return "not a PNG, JPEG, GIF or WebP"
    media_type, width, height = found
    if not (0 < width <= _MAX_SIDE and 0 < height <= _MAX_SIDE):
        return f"width and height must be 1 to {_MAX_SIDE:,} pixels"
    return Image(media_type, b64encode(content).decode(), len(content))


def _type_and_size(content: bytes) -> tuple[str, int, int] | None:
    if content.startswith(_PNG) and content[12:16] == b"IHDR":
        return ("image/png", *struct.unpack(">II", content[16:24]))
    if content.startswith((b"GIF87a", b"GIF89a")):
        return ("image/gif", *struct.unpack("<HH", content[6:10]))
    if content.startswith(b"\xff\xd8\xff"):
        return _of_jpeg(content)
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP" and len(content) >= _WEBP_HEAD:
        return _of_webp(content)
    return None


def _of_jpeg(content: bytes) -> tuple[str, int, int] | None:
    at = 2
    while content[at] == 0xFF:
        if content[at + 1] in _FRAMES:
            height, width = struct.unpack(">HH", content[at + 5 : at + 9])
            return "image/jpeg", width, height
        (length,) = struct.unpack(">H", content[at + 2 : at + 4])
        at += 2 + length
    return None


def _of_webp(content: bytes) -> tuple[str, int, int] | None:
    kind = content[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(content[24:27], "little") + 1
        return "image/webp", width, int.from_bytes(content[27:30], "little") + 1
    if kind == b"VP8L":
        (packed,) = struct.unpack("<I", content[21:25])
        return "image/webp", (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", content[26:30])
        return "image/webp", width & 0x3FFF, height & 0x3FFF
    return None
