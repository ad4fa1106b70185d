"""The report of each request in a load run, and statistics over many."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any


@dataclass(frozen=True, slots=True)
class Request:
    """One request to loopback; with `token` as a bearer, with `body` as JSON."""

    port: int
    path: str
    method: str = "GET"
    token: str = ""
    body: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """How one request went. Units: seconds of the monotonic clock, which processes share.

    `first` is when the first `delta` of a stream came, `data` the `data` of a JSON answer.
    """

    status: int
    began: float
    first: float | None
    ended: float
    turn_id: str
    completed: bool
    data: Any = None

    @property
    def first_ms(self) -> float:
        """Milliseconds to the first token."""
        if self.first is None:
            raise ValueError("no token ever came")
        return 1000 * (self.first - self.began)

    @property
    def whole_ms(self) -> float:
        """Milliseconds to the end of the answer."""
        return 1000 * (self.ended - self.began)


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and 95th percentile. Units: milliseconds."""

    p50: float
    p95: float


def spread(milliseconds: Iterable[float]) -> Spread:
    """Return the median and the 95th percentile of at least two values."""
    values = sorted(milliseconds)
    return Spread(median(values), quantiles(values, n=20, method="inclusive")[-1])


def per_second(batches: Iterable[Sequence[Sample]]) -> float:
    """Return the rate over batches that were measured one after the other."""
    taken_s, count = 0.0, 0
    for batch in batches:
        taken_s += max(sample.ended for sample in batch) - min(sample.began for sample in batch)
        count += len(batch)
    return count / taken_s
