"""Owns asking the library `limits` about several limits of a subject, and what its answers mean.

Where the counts are is decided elsewhere.
Source: https://limits.readthedocs.io/en/stable/strategies.html#sliding-window-counter
"""

import asyncio
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from limits import RateLimitItem, RateLimitItemPerSecond, WindowStats
from limits.aio.strategies import RateLimiter as Counter

from services.rate_limits.rules import Limit, LimitSet

_NO_TIME: Final = timedelta(0)


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether something is allowed, told by the limit that matters most.

    `remaining` and `reset_after` are what the library says right behind the decision: others may
    have taken something in between. After `reset_after` one more is allowed than now.
    """

    allowed: bool
    limit: Limit
    remaining: int
    reset_after: timedelta


async def take(counter: Counter, subject: str, limits: LimitSet) -> Decision:
    """Take one from all limits of a subject, if none of them is used up.

    All are asked before any is charged. Where requests at the same moment use up what was there
    when they asked, one limit may be charged for what another then refuses: somebody at a limit
    is held back a little more, never less.
    """
    items = [_item(limit) for limit in limits]
    # A hit refuses by itself; to ask before is for the others' sake.
    fits = [True]
    if len(items) > 1:
        fits = await asyncio.gather(*(counter.test(item, subject) for item in items))
    if all(fits):
        fits = await asyncio.gather(*(counter.hit(item, subject) for item in items))
    stats = await asyncio.gather(*(counter.get_window_stats(item, subject) for item in items))
    allowed = [_allowed(limit, told) for limit, told in zip(limits, stats, strict=True)]
    if all(fits):
        return min(allowed, key=lambda decision: decision.remaining)
    refusals = [_refused(decision) for decision, fit in zip(allowed, fits, strict=True) if not fit]
    return max(refusals, key=lambda decision: decision.reset_after)


def _item(limit: Limit) -> RateLimitItem:
    return RateLimitItemPerSecond(limit.amount, limit.window_s, namespace=limit.group)


def _allowed(limit: Limit, stats: WindowStats) -> Decision:
    reset_after = timedelta(seconds=stats.reset_time - time.time())
    return Decision(
        allowed=True,
        limit=limit,
        remaining=stats.remaining,
        reset_after=min(max(reset_after, _NO_TIME), limit.window),
    )


def _refused(decision: Decision) -> Decision:
    limit = decision.limit
    return Decision(
        allowed=False,
        limit=limit,
        # The library was asked a moment later, when enough may have been free again.
        remaining=0,
        # A limit of none never has any.
        reset_after=limit.window if limit.amount < 1 else decision.reset_after,
    )
