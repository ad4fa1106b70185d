"""Methods of resource groups, written once for both clients; and lists that iterate over pages.

A method of a group returns a `Call`. Its decorator makes that a blocking method where the group
belongs to `Everturn`, and an awaitable one where it belongs to `AsyncEverturn`.
"""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from functools import wraps
from itertools import islice
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from pydantic import ValidationError

from everturn_client.calls import Call, Meta, adapter, read_envelope
from everturn_client.errors import UnexpectedResponseError
from everturn_client.exchange import Script
from everturn_client.runners import Awaiting, Blocking

P = ParamSpec("P")
T = TypeVar("T")
RunnerT = TypeVar("RunnerT", bound=Blocking | Awaiting)


class Group(Generic[RunnerT]):
    """The methods of one group of the API."""

    def __init__(self, runner: RunnerT) -> None:
        self._runner = runner


class Endpoint(Generic[P, T]):
    """A method that makes one call and returns what its response carries."""

    def __init__(self, build: Callable[Concatenate[Any, P], Call[T]]) -> None:
        self.build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, group: None, owner: type) -> Self: ...
    @overload
    def __get__(self, group: Group[Blocking], owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(
        self, group: Group[Awaiting], owner: type
    ) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, group: Group[Any] | None, owner: type) -> Any:
        """Return the method of `group`."""
        if group is None:
            return self

        @wraps(self.build)
        def method(*args: P.args, **kwargs: P.kwargs) -> Any:  # noqa: ANN401 -- see the overloads
            return group._runner.call(self.build(group, *args, **kwargs))  # noqa: SLF001 -- the group's own

        return method


class Listing(Generic[P, T]):
    """A method that lists resources, page after page as they are iterated over."""

    def __init__(self, build: Callable[Concatenate[Any, P], Call[T]]) -> None:
        self.build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, group: None, owner: type) -> Self: ...
    @overload
    def __get__(self, group: Group[Blocking], owner: type) -> Callable[P, "Pages[T]"]: ...
    @overload
    def __get__(self, group: Group[Awaiting], owner: type) -> Callable[P, "AsyncPages[T]"]: ...
    def __get__(self, group: Group[Any] | None, owner: type) -> Any:
        """Return the method of `group`."""
        if group is None:
            return self

        @wraps(self.build)
        def method(*args: P.args, **kwargs: P.kwargs) -> Any:  # noqa: ANN401 -- see the overloads
            call = self.build(group, *args, **kwargs)
            runner = group._runner  # noqa: SLF001 -- the group's own
            return (Pages if isinstance(runner, Blocking) else AsyncPages)(runner, call)

        return method


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of a list. `meta` holds the API's other information about it."""

    data: list[T]
    meta: Meta

    @property
    def next_cursor(self) -> str | None:
        """Where the next page starts; None on the last one."""
        return self.meta.next_cursor


class Pages(Generic[T]):
    """A list: iterate over its items, or over its `pages()`."""

    def __init__(self, runner: Blocking, call: Call[T]) -> None:
        self._runner = runner
        self._call = call

    def __iter__(self) -> Iterator[T]:
        for page in self.pages():
            yield from page.data

    def pages(self) -> Iterator[Page[T]]:
        """Iterate over the pages."""
        call: Call[T] | None = self._call
        while call is not None:
            page = self._runner.drive(_page(self._runner.exchange.send(call), call))
            yield page
            call = _next_call(call, page)

    def first(self, count: int) -> list[T]:
        """Return the first `count` items, or fewer where the list ends earlier."""
        return list(islice(_limited(self, count), count))


class AsyncPages(Generic[T]):
    """A list: iterate over its items with `async for`, or over its `pages()`."""

    def __init__(self, runner: Awaiting, call: Call[T]) -> None:
        self._runner = runner
        self._call = call

    async def __aiter__(self) -> AsyncIterator[T]:
        async for page in self.pages():
            for item in page.data:
                yield item

    async def pages(self) -> AsyncIterator[Page[T]]:
        """Iterate over the pages."""
        call: Call[T] | None = self._call
        while call is not None:
            page = await self._runner.drive(_page(self._runner.exchange.send(call), call))
            yield page
            call = _next_call(call, page)

    async def first(self, count: int) -> list[T]:
        """Return the first `count` items, or fewer where the list ends earlier."""
        items: list[T] = []
        async for page in _limited(self, count).pages():
            items += page.data
            if len(items) >= count:
                break
        return items[:count]


_LARGEST_PAGE = 100
_ListT = TypeVar("_ListT", Pages[Any], AsyncPages[Any])


def _limited(pages: _ListT, count: int) -> _ListT:
    """Return the list with pages no larger than `count` items need."""
    call = pages._call  # noqa: SLF001 -- of this module
    limit = call.query.get("limit") or max(1, min(count, _LARGEST_PAGE))
    return type(pages)(pages._runner, replace(call, query={**call.query, "limit": limit}))  # noqa: SLF001 -- of this module


def _page(sending: Script[Any], call: Call[T]) -> Script[Page[T]]:
    envelope = read_envelope((yield from sending))
    if not isinstance(envelope.data, list):
        raise UnexpectedResponseError("a list")
    read = adapter(call.answer).validate_python
    try:
        return Page([read(item) for item in envelope.data], envelope.meta)
    except ValidationError as error:
        raise UnexpectedResponseError("a list") from error


def _next_call(call: Call[T], page: Page[T]) -> Call[T] | None:
    if page.next_cursor is None:
        return None
    return replace(call, query={**call.query, "cursor": page.next_cursor})
