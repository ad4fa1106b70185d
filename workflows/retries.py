"""Retry policies of activities, how long outages are waited for, and why an activity failed.

An activity itself marks failures that are final, and `activities/failures.py` those that keep
happening.
"""

from datetime import timedelta
from typing import Final

from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

LONGEST_TURN: Final = timedelta(hours=24)
"""How long anything that a turn waits for is retried; then an outage has ended the turn."""

LONGEST_BACKGROUND: Final = timedelta(days=7)
"""The same of background work."""

PATIENT: Final = RetryPolicy(
    initial_interval=timedelta(milliseconds=500), maximum_interval=timedelta(seconds=20)
)
"""For providers and tools, as long as it takes."""

QUICK: Final = RetryPolicy(
    initial_interval=timedelta(milliseconds=100), maximum_interval=timedelta(seconds=5)
)
"""For our own database."""

UNHURRIED: Final = RetryPolicy(
    initial_interval=timedelta(milliseconds=500), maximum_interval=timedelta(minutes=1)
)
"""For background work on the database or an embedding service, as long as it takes."""

ONCE: Final = RetryPolicy(maximum_attempts=1)
"""For work that the next sweep repeats, or that must not be repeated."""


def cause_of(error: BaseException) -> BaseException | None:
    """Return why an activity failed; the failure of a local one is not wrapped."""
    return error.cause if isinstance(error, ActivityError) else error
