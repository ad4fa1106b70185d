"""Owns how often what workflows ask of the world is tried again; activities say what is final."""

from datetime import timedelta
from typing import Final

from temporalio.common import RetryPolicy

PATIENT: Final = RetryPolicy(
    initial_interval=timedelta(milliseconds=500), maximum_interval=timedelta(seconds=20)
)
"""For what waits for a provider or a tool, as long as it takes."""

QUICK: Final = RetryPolicy(
    initial_interval=timedelta(milliseconds=100), maximum_interval=timedelta(seconds=5)
)
"""For what waits for our own database alone."""

UNHURRIED: Final = RetryPolicy(
    initial_interval=timedelta(milliseconds=500), maximum_interval=timedelta(minutes=1)
)
"""For what waits in the background for a database or an embedding service, as long as it takes."""

ONCE: Final = RetryPolicy(maximum_attempts=1)
"""For what is left to the next sweep, or is not for us to repeat."""
