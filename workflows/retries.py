"""Retry policies of activities; an activity itself marks failures that are final."""

from datetime import timedelta
from typing import Final

from temporalio.common import RetryPolicy

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
