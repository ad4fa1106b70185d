"""What a user's model calls may take of a worker: half of its slots.

Temporal is fair between users in what it hands out, and doesn't look at what runs already: answers
that take a minute each would fill every slot with those of one user, and others would wait until
they end. What is beyond the share gives its slot back and comes again later.
"""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import names
from schema.ids import UserId

_PART: Final = 2
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 16.0
"""Hundreds of calls that wait cost the server a few attempts a second."""


class UserShares:
    """Who has how many of a worker's slots."""

    def __init__(self, slots: int) -> None:
        self._most = max(1, slots // _PART)
        self._taken: Counter[UserId] = Counter()

    @asynccontextmanager
    async def place(self, user_id: UserId) -> AsyncIterator[None]:
        """Take a place in the user's share while the block runs.

        Errors: ApplicationError `ShareTaken`, which is retried, if there is none.
        """
        if self._taken[user_id] >= self._most:
            raise ApplicationError(
                "The user's other work takes the user's share of this worker",
                type=names.SHARE_TAKEN,
                next_retry_delay=_pause(activity.info().attempt),
            )
        self._taken[user_id] += 1
        try:
            yield
        finally:
            self._taken[user_id] -= 1
            if not self._taken[user_id]:
                del self._taken[user_id]


def _pause(attempt: int) -> timedelta:
    doublings = min(attempt - 1, 10)
    return timedelta(seconds=min(_FIRST_PAUSE_S * 2**doublings, _LONGEST_PAUSE_S))
