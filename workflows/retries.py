"""Owns how often what turns ask of the world is tried again; activities say what is final."""

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
