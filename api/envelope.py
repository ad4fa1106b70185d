"""Owns the shape of every JSON body: `data` with `meta`, or `error` with `meta`."""

from typing import Generic, TypeVar
from urllib.parse import quote

from fastapi import Request, Response
from pydantic import Field

from schema.errors import ErrorCode
from schema.pages import Page
from schema.wire import VersionedModel, WireModel

T = TypeVar("T")
V = TypeVar("V", bound=VersionedModel)


class Meta(WireModel):
    """What is said about an answer."""

    request_id: str = Field(description="Echoed from `X-Request-Id`, or made; name it in reports.")


class ListMeta(Meta):
    """What is said about a page of a list."""

    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last one.")


class Envelope(WireModel, Generic[T]):
    """A successful answer."""

    data: T
    meta: Meta


class ListEnvelope(WireModel, Generic[T]):
    """A page of a list."""

    data: list[T]
    meta: ListMeta


class FieldProblem(WireModel):
    """What is wrong with one part of a request."""

    path: str = Field(description="Where it is, as `body.content`.")
    message: str


class ErrorBody(WireModel):
    """What went wrong."""

    code: ErrorCode
    message: str = Field(description="For a person; may change. Branch on `code`.")
    details: list[FieldProblem] | None = None
    retryable: bool = Field(description="Whether the same request may succeed later.")


class ErrorEnvelope(WireModel):
    """A failed answer."""

    error: ErrorBody
    meta: Meta


def request_id_of(request: Request) -> str:
    """Return the id under which this request is logged."""
    return str(request.scope["everturn.request_id"])


def envelope(request: Request, data: T) -> Envelope[T]:
    """Wrap a successful answer."""
    return Envelope(data=data, meta=Meta(request_id=request_id_of(request)))


def tagged(request: Request, response: Response, data: V) -> Envelope[V]:
    """Wrap an answer whose thing has a version, and name that in `ETag`."""
    _tag(response, data)
    return envelope(request, data)


def _tag(response: Response, data: VersionedModel) -> None:
    response.headers["ETag"] = f'"{data.version}"'


def created(request: Request, response: Response, data: T, *, at: str) -> Envelope[T]:
    """Wrap what was made, and name in `Location` the path that it is at.

    Source: RFC 9110, section 10.2.2.
    """
    response.headers["Location"] = quote(at)
    if isinstance(data, VersionedModel):
        _tag(response, data)
    return envelope(request, data)


def list_envelope(request: Request, page: Page[T]) -> ListEnvelope[T]:
    """Wrap a page of a list."""
    meta = ListMeta(request_id=request_id_of(request), next_cursor=page.next_cursor)
    return ListEnvelope(data=page.items, meta=meta)
