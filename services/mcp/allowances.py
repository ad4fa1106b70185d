"""Owns amounts that are used up and come back with time, or when something good happens."""

from time import monotonic


class Allowance:
    """How much may still be used; the whole of it comes back within `refill_s`."""

    def __init__(self, limit: int, *, refill_s: float) -> None:
        self._limit = limit
        self._per_second = limit / refill_s
        self._left = float(limit)
        self._counted_at = monotonic()

    def take(self, amount: int) -> bool:
        """Use some of it, and say whether there was enough."""
        now = monotonic()
        back = (now - self._counted_at) * self._per_second
        self._left = min(self._limit, self._left + back) - amount
        self._counted_at = now
        return self._left >= 0

    def restore(self) -> None:
        """Give all of it back."""
        self._left = self._limit
