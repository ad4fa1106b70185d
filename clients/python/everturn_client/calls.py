"""Calls to the API as values: the request, and the type of its response. They do no I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx2
from pydantic import BaseModel, JsonValue, SecretStr, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import to_jsonable_python

from everturn_client.errors import UnexpectedResponseError
from everturn_client.models import Resource

T = TypeVar("T")


class Unset(Enum):
    """The type of `UNSET`."""

    UNSET = "UNSET"


UNSET: Final = Unset.UNSET
"""Stands for a field that is left out of a request, where None means JSON's null."""

Maybe: TypeAlias = T | Unset


class Upload(tuple[str, bytes, str]):
    """A file to send: its name, its bytes, its content type."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True)
class Call(Generic[T]):
    """One request, and the type that its response is read as.

    `repeatable` says whether the request may be sent again where it may have arrived already;
    `tokens`, what happens to the client's tokens after a success.
    """

    method: str
    path: str
    answer: type[T]
    query: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    file: Upload | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True
    signed: bool = True
    tokens: Literal["keep", "forget"] | None = None

    def read(self, response: httpx2.Response) -> T:
        """Return what a successful response carries. Errors: UnexpectedResponseError."""
        data: object = None
        if self.answer is bytes:
            data = response.content
        elif self.answer is not type(None):
            data = read_envelope(response).data
        try:
            return adapter(self.answer).validate_python(data)
        except ValidationError as error:
            raise UnexpectedResponseError("a response") from error


class Meta(Resource):
    """The metadata of every response."""

    request_id: str | None = None
    next_cursor: str | None = None


class Envelope(Resource):
    """The body of a successful response."""

    data: JsonValue
    meta: Meta = Meta()


def read_envelope(response: httpx2.Response) -> Envelope:
    """Return the body of a successful response. Errors: UnexpectedResponseError."""
    try:
        return Envelope.model_validate_json(response.content)
    except ValidationError as error:
        raise UnexpectedResponseError("a response") from error


def adapter(kind: type[T]) -> TypeAdapter[T]:
    """Return the validator of a type."""
    validator: TypeAdapter[T] = _adapter(kind)  # type: ignore[arg-type]  # types are hashable
    return validator


@lru_cache(maxsize=256)
def _adapter(kind: Any) -> TypeAdapter[Any]:  # noqa: ANN401 -- `list[Memory]` is no type to mypy
    return TypeAdapter(kind)


def get(answer: type[T], *parts: str | int, query: Mapping[str, Any] | None = None) -> Call[T]:
    """Return a call that reads a resource."""
    return Call(method="GET", path=path(*parts), answer=answer, query=query or {})


def listing(answer: type[T], *parts: str | int, query: Mapping[str, Any]) -> Call[T]:
    """Return a call that reads a page of a list, of items of type `answer`."""
    return get(answer, *parts, query=query)


def post(
    answer: type[T],
    *parts: str | int,
    body: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    repeatable: bool = True,
    signed: bool = True,
    tokens: Literal["keep", "forget"] | None = None,
) -> Call[T]:
    """Return a call that does something to a resource."""
    return Call(
        method="POST",
        path=path(*parts),
        answer=answer,
        body=body,
        headers=headers or {},
        repeatable=repeatable,
        signed=signed,
        tokens=tokens,
    )


def creation(
    answer: type[T], *parts: str | int, body: Mapping[str, Any] | None, key: str | None
) -> Call[T]:
    """Return a call that creates a resource once, however often it is sent."""
    return Call(
        method="POST", path=path(*parts), answer=answer, body=body, headers=creation_key(key)
    )


def change(
    answer: type[T],
    *parts: str | int,
    body: Mapping[str, Any],
    version: int | None,
    method: str = "PATCH",
) -> Call[T]:
    """Return a call that changes a resource, or with `version` only that version of it."""
    return Call(
        method=method,
        path=path(*parts),
        answer=answer,
        body=body,
        headers=if_match(version),
        # Sent again after it was applied, it would be refused for its version.
        repeatable=version is None,
    )


def delete(
    *parts: str | int, body: Mapping[str, Any] | None = None, version: int | None = None
) -> Call[None]:
    """Return a call that deletes a resource, or with `version` only that version of it."""
    return Call(
        method="DELETE",
        path=path(*parts),
        answer=type(None),
        body=body,
        headers=if_match(version),
        repeatable=version is None,
    )


def path(*parts: str | int) -> str:
    """Return a path below `/api/v1`. Errors: ValueError for an empty part, `.` or `..`."""
    if any(str(part) in {"", ".", ".."} for part in parts):
        raise ValueError(f"Invalid identifier in {'/'.join(map(str, parts))!r}")
    return "/" + "/".join(quote(str(part), safe="") for part in parts)


def fields(**values: object) -> dict[str, Any]:
    """Return the fields of a body that are set, under their names on the wire."""
    return {to_camel(name): _plain(value) for name, value in values.items() if value is not UNSET}


def filters(**values: object) -> dict[str, Any]:
    """Return the fields of a body or a query that are neither left out nor None."""
    return {name: value for name, value in fields(**values).items() if value is not None}


def creation_key(key: str | None) -> dict[str, str]:
    """Return the header of a creation: the caller's idempotency key, or a new one."""
    return {"Idempotency-Key": key or str(uuid4())}


def if_match(version: int | None) -> dict[str, str]:
    """Return the header that lets a change apply to this version alone."""
    return {} if version is None else {"If-Match": f'"{version}"'}


def _plain(value: object) -> Any:  # noqa: ANN401 -- any JSON
    match value:
        case BaseModel():
            return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
        case SecretStr():
            return value.get_secret_value()
        case _:
            return to_jsonable_python(value)
