"""Owns the models' shapes on the wire: camelCase JSON for clients, snake_case inside."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, PlainSerializer
from pydantic.alias_generators import to_camel


class Payload(BaseModel):
    """A value that Temporal carries: ids, counts, names and costs, never what a person wrote."""

    model_config = ConfigDict(frozen=True)


class WireModel(BaseModel):
    """A value that a client sees, in camelCase."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)


class RequestModel(BaseModel):
    """A value that a client sends: strict types, and no field that is not known."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
    )


def format_usd(amount: Decimal) -> str:
    """Return a plain decimal without exponent or idle zeros, as `0.00042`."""
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def format_time(moment: datetime) -> str:
    """Return RFC 3339 in UTC with microseconds, as `2026-01-31T09:00:00.000000Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain the NUL character")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("must not contain lone surrogates")
    return text


Usd = Annotated[Decimal, PlainSerializer(format_usd, return_type=str, when_used="json")]
Timestamp = Annotated[datetime, PlainSerializer(format_time, return_type=str, when_used="json")]
StorableText = Annotated[str, AfterValidator(_storable)]
"""Text that Postgres can hold: no NUL, no half of a surrogate pair."""


def make_storable(text: str) -> str:
    """Return `text` with what Postgres can't hold replaced by U+FFFD, as for a model's output."""
    if text.isascii() and "\x00" not in text:
        return text
    return "".join(
        "\ufffd" if char == "\x00" or "\ud800" <= char <= "\udfff" else char for char in text
    )
