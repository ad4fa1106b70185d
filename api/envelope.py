"""The shape of every JSON response: `data` with `meta`, or `error` with `meta`."""

from typing import Generic, TypeVar
from urllib.parse import quote

from fastapi import Request, Response
from pydantic import Field

from schema.budgets import BudgetExceeded
from schema.errors import ErrorCode
from schema.ids import TurnId
from schema.pages import Page
from schema.wire import VersionedModel, WireModel

T = TypeVar("T")
V = TypeVar("V", bound=VersionedModel)


class Meta(WireModel):
    """Information about a response."""

    request_id: str = Field(description="The request's ID; quote it to support.")


class ListMeta(Meta):
    """Information about a page of a list."""

    next_cursor: str | None = Field(
        description="The `cursor` of the next page; null on the last page."
    )


class Envelope(WireModel, Generic[T]):
    """A successful response; in OpenAPI e.g. `ChatResponse`."""

    data: T
    meta: Meta


class ListEnvelope(WireModel, Generic[T]):
    """A page of a list; in OpenAPI e.g. `ChatListResponse`."""

    data: list[T]
    meta: ListMeta


class FieldProblem(WireModel):
    """What is wrong with one part of a request."""

    path: str = Field(description="The part's path, e.g. `body.content`.")
    message: str


class ErrorBody(WireModel):
    """An error."""

    code: ErrorCode
    message: str = Field(description="For people; it may change. Branch on `code`.")
    details: list[FieldProblem] | BudgetExceeded | None = Field(
        None, description="The invalid fields; for `BUDGET_EXCEEDED`, the budget."
    )
    retryable: bool = Field(description="Whether the same request may succeed later.")
    turn_id: TurnId | None = Field(None, description="The failed turn, if a turn failed.")


class ErrorResponse(WireModel):
    """An error response."""

    error: ErrorBody
    meta: Meta


def request_id_of(request: Request) -> str:
    """Return the request's ID, which its log lines carry."""
    return str(request.scope["everturn.request_id"])


def envelope(request: Request, data: T) -> Envelope[T]:
    """Wrap a successful response."""
    return Envelope(data=data, meta=Meta(request_id=request_id_of(request)))


def tagged(request: Request, response: Response, data: V) -> Envelope[V]:
    """Wrap a versioned resource, and send its version as `ETag`."""
    _tag(response, data)
    return envelope(request, data)


def _tag(response: Response, data: VersionedModel) -> None:
    response.headers["ETag"] = f'"{data.version}"'


def created(request: Request, response: Response, data: T, *, at: str) -> Envelope[T]:
    """Wrap a created resource, and send its path as `Location`.

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
