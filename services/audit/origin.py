"""Owns where a request came from, so that what is recorded can say so without being told.

The front sets it for each request; what no request asked for, as a sweep, has none.
"""

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    """The request that something is done for; `address` is the client's IP address."""

    request_id: str | None = None
    address: str | None = None


_origin: ContextVar[Origin] = ContextVar("everturn_origin", default=Origin())  # noqa: B039 -- frozen


def set_origin(origin: Origin) -> None:
    """Say for this task, and those begun by it, where its request came from."""
    _origin.set(origin)


def current_origin() -> Origin:
    """Return where this task's request came from."""
    return _origin.get()
