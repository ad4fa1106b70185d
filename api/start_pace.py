"""The pace of a user's turns: a burst begins at once, and more of them one after the other.

Two hundred turns at once would take all cores for seconds. Others would wait, whatever is done in
turn behind: the database, Temporal and each process of Everturn compete for the same cores. Alone,
a user has no pace.
"""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from cachetools import TTLCache

from schema.ids import UserId

_BURST_S: Final = 1.0
"""The turns of so many seconds begin at once."""
_ACTIVE_S: Final = 10.0
"""For how long after a message its user counts as one who chats."""
_MOST_USERS: Final = 10_000


class StartPace:
    """When the turns of users begin who chat at the same time, as this process sees it."""

    def __init__(
        self, *, per_second: float = 8.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval_s = 1 / per_second
        self._clock = clock
        self._due: TTLCache[UserId, float] = TTLCache(_MOST_USERS, _ACTIVE_S, clock)

    def delay(self, user_id: UserId) -> timedelta:
        """Return how long the user's next turn waits before it begins."""
        now = self._clock()
        self._due.expire()
        due = max(now, self._due.get(user_id, now))
        if len(self._due) == (user_id in self._due):
            due = now  # nobody else chats
        self._due[user_id] = due + self._interval_s
        return timedelta(seconds=max(0.0, due - now - _BURST_S))
