"""The current speed of the machine: a shared one is twice as fast at times."""

import time
from typing import Final

_ADDITIONS: Final = 1_000_000


def pace_ms() -> float:
    """Return how long a loop of a million additions takes. Units: milliseconds of CPU."""
    begun = time.process_time()
    total = 0
    for number in range(_ADDITIONS):
        total += number
    return (time.process_time() - begun) * 1000
