"""Work that must finish, because stopping it would lose what was paid for, or hold up other work.

DefectError    something unexpected broke such work off
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Final, TypeVar

import structlog

from services.database import DatabaseUnavailableError

T = TypeVar("T")
R = TypeVar("R")

_log = structlog.get_logger(__name__)

_FIRST_PAUSE_S: Final = 0.1
_MAX_PAUSE_S: Final = 2.0
_OUTAGE: Final = 10
"""If this many items fail in a row, it is not for themselves."""


class DefectError(Exception):
    """A defect of ours broke off an attempt that has been charged, and counted, already.

    Its cause says which. `exhausted` says that no attempt is left.
    """

    def __init__(self, *, exhausted: bool) -> None:
        super().__init__("Unexpected error; the attempt was charged.")
        self.exhausted = exhausted


async def until_stored(store: Callable[[], Awaitable[T]]) -> T:
    """Call `store` until the database is available; other errors propagate.

    A model's response exists only in this process until it is stored; failing the activity
    instead would request, and pay for, it again.
    """
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            return await store()
        except DatabaseUnavailableError:
            _log.warning("database_unavailable", retry_in_s=pause_s)
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, _MAX_PAUSE_S)


async def shielded(work: Coroutine[Any, Any, T]) -> T:
    """Finish `work` even if this task is cancelled; then raise the cancellation."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


async def each_alone(items: Iterable[T], handle: Callable[[T], Awaitable[R]]) -> list[R]:
    """Return what `handle` returns for each item; one that fails is logged and left out.

    Errors: the last failure, after ten in a row: an outage.
    """
    results: list[R] = []
    in_a_row = 0
    for item in items:
        try:
            results.append(await handle(item))
            in_a_row = 0
        except Exception:
            in_a_row += 1
            _log.exception("item_left_out", item=str(item))
            if in_a_row == _OUTAGE:
                raise
    return results
