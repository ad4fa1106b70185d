"""Owns which images of strangers may be shown to a model: of known kinds, whole enough, bounded.

The Messages API refuses a whole request for one image that is none, or is too large.
"""

import binascii
import struct
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Final

MAX_IMAGE_BYTES: Final = 3 * 1024 * 1024
_MAX_SIDE: Final = 7_680
_WEBP_HEAD: Final = 30
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""The markers of JPEG that tell the size of the image."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image that can be shown. Units: `size` is in bytes."""

    media_type: str
    data: str
    size: int

    def block(self) -> dict[str, object]:
        """Return it as a content block of the Messages API."""
        source = {"type": "base64", "media_type": self.media_type, "data": self.data}
        return {"type": "image", "source": source}


def read_image(data: str) -> Image | str:
    """Return the image that base64 holds, or what is wrong with it.

    Its kind is what its bytes say, whatever the server calls it.
    """
    if len(data) > MAX_IMAGE_BYTES * 4 // 3 + 4:
        return f"it is larger than {MAX_IMAGE_BYTES // 2**20} MiB"
    try:
        content = b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return "it is not valid base64"
    try:
        found = _kind_and_sides(content)
    except (struct.error, IndexError):
        found = None
    if found is None:
        return "it is no PNG, JPEG, GIF or WebP"
    media_type, width, height = found
    if not (0 < width <= _MAX_SIDE and 0 < height <= _MAX_SIDE):
        return f"its sides are not between 1 and {_MAX_SIDE:,} pixels"
    return Image(media_type, b64encode(content).decode(), len(content))


def _kind_and_sides(content: bytes) -> tuple[str, int, int] | None:
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
