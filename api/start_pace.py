"""The pace of a user's turns: a burst begins at once, and more of them one after the other.

A hundred turns at once would take all cores for seconds. Others would wait, whatever is done in
turn behind: the database, Temporal and each process of Everturn compete for the same cores. Users
who are as busy as each other have no pace, nor has a user alone.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from math import exp
from statistics import median_low
from typing import Final

from cachetools import TTLCache

from schema.ids import UserId

_BURST_S: Final = 1.0
"""The turns of so many seconds begin at once."""
_ACTIVE_S: Final = 10.0
"""For how long after a message its user counts as one who chats."""
_RECENT_S: Final = 1.0
"""Over which a user's messages are averaged."""
_MOST_USERS: Final = 10_000


@dataclass(slots=True)
class _Chatter:
    """A user who chats. Units: messages a second, as of `at`; moments of the clock."""

    due: float
    at: float
    rate: float = 0.0

    def rate_at(self, now: float) -> float:
        return self.rate * exp((self.at - now) / _RECENT_S)


class StartPace:
    """When the turns of users begin who chat at the same time, as this process sees it."""

    def __init__(
        self, *, per_second: float = 8.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second = per_second
        self._clock = clock
        self._chatters: TTLCache[UserId, _Chatter] = TTLCache(_MOST_USERS, _ACTIVE_S, clock)

    def delay(self, user_id: UserId) -> timedelta:
        """Return how long the user's next turn waits before it begins."""
        now = self._clock()
        chatter = self._chatters.get(user_id) or _Chatter(due=now, at=now)
        chatter.rate, chatter.at = chatter.rate_at(now) + 1 / _RECENT_S, now
        pace, due = self._per_second, max(now, chatter.due)
        if due > now:
            others = [
                other.rate_at(now) for other in self._chatters.values() if other is not chatter
            ]
            if others:
                pace += median_low(others)
            else:
                due = now
        chatter.due = due + 1 / pace
        self._chatters[user_id] = chatter
        return timedelta(seconds=max(0.0, due - now - _BURST_S))
