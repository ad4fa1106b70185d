"""Pages of lists: a cursor names the last row returned, so that new rows shift nothing.

InvalidCursorError    the cursor is not one of this list and order
"""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

T = TypeVar("T")
U = TypeVar("U")

_LONGEST_VALUE: Final = 250


class InvalidCursorError(Exception):
    """The cursor is not one of this list and order."""

    def __init__(self) -> None:
        super().__init__("Invalid cursor.")


@dataclass(frozen=True, slots=True)
class PageRequest:
    """The requested part of a list: at most `limit` rows after the one that `cursor` names."""

    limit: int
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page, and the cursor of the next if there is one."""

    items: Sequence[T]
    next_cursor: str | None

    def map(self, function: Callable[[T], U]) -> "Page[U]":
        """Return the page with the function applied to each item."""
        return Page([function(item) for item in self.items], self.next_cursor)


def encode_cursor(order: str, place: Sequence[object]) -> str:
    """Return the cursor that names a row by its values in the columns of an order."""
    values = [_to_json(value) for value in place]
    raw = json.dumps([order, *values], separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(raw.encode()).decode().rstrip("=")


def decode_cursor(cursor: str, order: str, types: Sequence[type]) -> list[Any]:
    """Return the values that a cursor names, each of its column's type.

    Errors: InvalidCursorError.
    """
    padding = "=" * (-len(cursor) % 4)
    try:
        raw = base64.b64decode(cursor + padding, altchars=b"-_", validate=True)
        given = json.loads(raw)
        if not isinstance(given, list) or given[0] != order or len(given) != 1 + len(types):
            raise InvalidCursorError
        return [_from_json(value, kind) for value, kind in zip(given[1:], types, strict=True)]
    except (binascii.Error, ValueError, IndexError, OverflowError, RecursionError) as error:
        raise InvalidCursorError from error


def _to_json(value: object) -> object:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return value


def _from_json(value: object, kind: type) -> object:
    """Return a column's value; a value of another type is a ValueError."""
    if kind is UUID and isinstance(value, str):
        return UUID(value)
    if kind is datetime and isinstance(value, str):
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    if kind is str and isinstance(value, str) and "\x00" not in value:
        value.encode()
        if len(value) <= _LONGEST_VALUE:
            return value
    if kind is float and type(value) in {int, float}:
        number = float(str(value))
        if abs(number) < 2**53:
            return number
    if kind is int and type(value) is int and abs(value) < 2**31:
        return value
    raise ValueError("not of the column's type")
