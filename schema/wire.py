"""Base models on the wire: camelCase JSON for clients, snake_case inside."""

import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    model_validator,
)
from pydantic.alias_generators import to_camel


class Payload(BaseModel):
    """A value that Temporal carries: ids, counts, names and costs, never what a person wrote."""

    model_config = ConfigDict(frozen=True)


class WireModel(BaseModel):
    """A value that a client receives, in camelCase; `model_validate` also reads rows."""

    model_config = ConfigDict(
        frozen=True, alias_generator=to_camel, populate_by_name=True, from_attributes=True
    )


class VersionedModel(WireModel):
    """A resource that several people may edit; `version` counts its changes and is its `ETag`."""

    version: int


class RequestModel(BaseModel):
    """A value that a client sends: strict types, and no unknown fields."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
    )


class FilterModel(WireModel):
    """The filters of a list, as query parameters."""

    model_config = ConfigDict(extra="ignore")


class ChangeModel(RequestModel):
    """A change of some fields of a resource; omitted fields stay unchanged."""

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("must have at least one field to change")
        return self

    def changes(self) -> dict[str, Any]:
        """Return the fields that the client sent, by their Python names."""
        return self.model_dump(exclude_unset=True)


def unset() -> Any:  # noqa: ANN401 -- as pydantic's own Field, assignable to any field
    """Return a field of a change that may be left out, but not be null."""
    return Field(default_factory=lambda: None)


def format_usd(amount: Decimal) -> str:
    """Return a plain decimal without exponent or trailing zeros, e.g. `0.00042`."""
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def format_time(moment: datetime) -> str:
    """Return RFC 3339 in UTC with microseconds, e.g. `2026-01-31T09:00:00.000000Z`."""
    return f"{moment.astimezone(UTC).isoformat(timespec='microseconds')[:-6]}Z"


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain the NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must not contain lone surrogates") from None
    return text


_DATE_AND_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]")


def _written_out(value: object) -> object:
    """Keep numbers from being read as seconds since 1970, and dates as midnights."""
    if isinstance(value, datetime) or (isinstance(value, str) and _DATE_AND_TIME.match(value)):
        return value
    raise ValueError("must be a date and time with an offset, e.g. 2026-01-31T09:00:00Z")


Moment = Annotated[
    AwareDatetime,
    BeforeValidator(_written_out),
    Field(
        strict=False,
        ge=datetime(1970, 1, 1, tzinfo=UTC),
        lt=datetime(2200, 1, 1, tzinfo=UTC),
        examples=["2026-01-31T09:00:00Z"],
    ),
]
"""A time that a client sends: RFC 3339 with an offset, within bounds that every part can hold."""

Usd = Annotated[Decimal, PlainSerializer(format_usd, return_type=str, when_used="json")]
Timestamp = Annotated[datetime, PlainSerializer(format_time, return_type=str, when_used="json")]
StorableText = Annotated[str, AfterValidator(_storable)]
"""Text that Postgres can hold: no NUL, no lone surrogates."""


def _visible(text: str) -> str:
    if not any(char.isprintable() and not char.isspace() for char in text):
        raise ValueError("must not be blank")
    return text


VisibleText = Annotated[StorableText, AfterValidator(_visible)]
"""Text that names something to people: at least one visible character."""


_FEW_ITEMS = 16  # a delta of a model has about eight
_NO_SYNTAX = bytes(set(range(256)) - set(b'",[{'))


def count_json_items(body: bytes, *, most: int) -> int:
    """Return how many items JSON has, by its commas and brackets; exactly, if at most `most`."""
    items = _items(body)
    if items <= _FEW_ITEMS:
        return items
    syntax = body.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _NO_SYNTAX)
    # An item has a string for its key, and one for its value.
    if syntax.count(b'"') > 4 * (most + 1):
        return most + 1
    return sum(map(len, syntax.split(b'"')[::2]))


def _items(body: bytes) -> int:
    return body.count(b",") + body.count(b"[") + body.count(b"{")


_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_SURROGATE_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def make_storable(text: str) -> str:
    """Return `text` with what Postgres can't hold replaced by U+FFFD, e.g. in a model's output.

    The halves of a surrogate pair, written apart, become the character that they stand for.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        text = _SURROGATE_PAIR.sub(_joined_pair, text)
        return _UNSTORABLE.sub("\ufffd", text)
    return text.replace("\x00", "\ufffd")


def _joined_pair(pair: re.Match[str]) -> str:
    return pair[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le")


def _storable_object(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        raise ValueError("must not contain NaN or Infinity") from None
    waiting: list[JsonValue] = [value]
    while waiting:
        part = waiting.pop()
        match part:
            case str():
                _storable(part)
            case dict():
                waiting += [*part.keys(), *part.values()]
            case list():
                waiting += part
            case _:
                pass
    return value


StorableObject = Annotated[dict[str, JsonValue], AfterValidator(_storable_object)]
"""A JSON object that Postgres can hold."""
