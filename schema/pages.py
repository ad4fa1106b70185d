"""Owns pages of lists: a cursor names the last row that was seen, so that new rows move nothing."""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

T = TypeVar("T")

_UUID_BYTES = 16


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which part of a list is wanted: at most `limit` rows behind the one that `after` names."""

    limit: int
    after: tuple[UUID, ...] | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page, and the cursor of the next if there is one."""

    items: Sequence[T]
    next_cursor: str | None

    @classmethod
    def of(
        cls, rows: Sequence[T], request: PageRequest, *, key: Callable[[T], tuple[UUID, ...]]
    ) -> "Page[T]":
        """Make a page of rows that were asked for with one more than the limit."""
        items = rows[: request.limit]
        more = len(rows) > request.limit
        return cls(items, encode_cursor(key(items[-1])) if more else None)


def encode_cursor(key: tuple[UUID, ...]) -> str:
    """Return the cursor that names a row."""
    return base64.urlsafe_b64encode(b"".join(part.bytes for part in key)).decode().rstrip("=")


def decode_cursor(cursor: str, *, parts: int) -> tuple[UUID, ...] | None:
    """Return the row that a cursor names, or None if it names none."""
    padding = "=" * (-len(cursor) % 4)
    try:
        raw = base64.b64decode(cursor + padding, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(raw) != parts * _UUID_BYTES:
        return None
    pieces = (raw[start : start + _UUID_BYTES] for start in range(0, len(raw), _UUID_BYTES))
    return tuple(UUID(bytes=piece) for piece in pieces)
