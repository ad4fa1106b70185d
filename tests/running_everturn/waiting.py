"""Polling, with a bound, for what no event announces."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

T = TypeVar("T")

_PAUSE_S: Final = 0.02


async def eventually(
    look: Callable[[], Awaitable[T]], until: Callable[[T], bool], *, within_s: float = 30.0
) -> T:
    """Return what `look` sees as soon as `until` holds for it.

    Errors: TimeoutError, with what was seen last.
    """
    seen = await look()
    try:
        async with asyncio.timeout(within_s):
            while not until(seen):
                await asyncio.sleep(_PAUSE_S)
                seen = await look()
    except TimeoutError:
        raise TimeoutError(f"not within {within_s:g} s; last seen: {seen!r}") from None
    return seen
