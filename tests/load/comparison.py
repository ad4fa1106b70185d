"""Comparisons that can be trusted: sides in turns, repeated until their interval is narrow.

A round measures every side once. Whatever slows the machine for longer than a round slows all
sides, so rounds, and not single turns, are what the interval of a figure is computed from.
"""

import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final, Generic, TypeVar

T = TypeVar("T")

MOST_REGRESSED: Final = 1.10
_RESAMPLES: Final = 400
_SEED: Final = 7
_COVERED: Final = 0.95
_NORMAL: Final = 1.96
_LEAST_ROUNDS: Final = 3


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half of the interval's width."""
        return (self.high - self.low) / 2

    def is_narrow(self, *, share: float, absolute: float = 0.0) -> bool:
        """Whether it is within this share of the estimate, or within this much, to each side."""
        return self.half <= max(share * abs(self.value), absolute)


def interval_of(rounds: Sequence[T], statistic: Callable[[Sequence[T]], float]) -> Interval:
    """Return a statistic of the rounds with its interval, by a seeded bootstrap of whole rounds.

    Resamples of few rounds vary too little: the interval is expanded, as that of a mean would be.
    Below three rounds it has no bounds.
    Source: Hesterberg, "What Teachers Should Know About the Bootstrap", 2015, section 4.1.
    Errors: ValueError without rounds.
    """
    if not rounds:
        raise ValueError("nothing was measured")
    value, count = statistic(rounds), len(rounds)
    if count < _LEAST_ROUNDS:
        return Interval(value, float("-inf"), float("inf"))
    chance = random.Random(_SEED)
    resampled = sorted(statistic(chance.choices(rounds, k=count)) for _ in range(_RESAMPLES))
    beyond = int(_RESAMPLES * (1 - _COVERED) / 2)
    wider = sqrt(count / (count - 1)) * _students_quantile(count - 1) / _NORMAL
    return Interval(
        value,
        min(value, value + (resampled[beyond] - value) * wider),
        max(value, value + (resampled[-1 - beyond] - value) * wider),
    )


def _students_quantile(freedom: int) -> float:
    """Return the 97.5th percentile of Student's t, within 3 % from two degrees of freedom on.

    Source: Abramowitz and Stegun, 26.7.5, to the third term.
    """
    z = _NORMAL
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


def is_regression(ratio: Interval, *, higher_is_better: bool) -> bool:
    """Whether the ratio to the base is worse by more than a tenth, even at its better end."""
    if higher_is_better:
        return ratio.high < 1 / MOST_REGRESSED
    return ratio.low > MOST_REGRESSED


@dataclass(frozen=True, slots=True)
class Effort:
    """How long rounds are repeated: `within_s` is looked at between rounds."""

    least: int
    most: int
    within_s: float


@dataclass(frozen=True, slots=True)
class Comparison(Generic[T]):
    """The sides of a comparison by name; each function measures one batch."""

    sides: Mapping[str, Callable[[], Awaitable[T]]]
    effort: Effort
    clock: Callable[[], float] = time.monotonic

    async def run(
        self, is_enough: Callable[[Sequence[Mapping[str, T]]], bool]
    ) -> list[Mapping[str, T]]:
        """Measure rounds until they are enough, their number is reached, or their time is over.

        Another side is first in each round: what one leaves to the next is spread over all.
        """
        begun = self.clock()
        rounds: list[Mapping[str, T]] = []
        names = list(self.sides)
        while len(rounds) < self.effort.most:
            begin = len(rounds) % len(names)
            measured = {name: await self.sides[name]() for name in names[begin:] + names[:begin]}
            rounds.append(measured)
            if len(rounds) >= self.effort.least and (
                self.clock() - begun > self.effort.within_s or is_enough(rounds)
            ):
                break
        return rounds


def percentile(values: Iterable[float], share: float) -> float:
    """Return the value below which this share of all is, interpolated. Errors: ValueError."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values")
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def thinned(values: Sequence[float], count: int) -> list[float]:
    """Return at most this many values with the same distribution, in order."""
    if len(values) <= count:
        return sorted(values)
    ordered = sorted(values)
    return [ordered[round(number * (len(ordered) - 1) / (count - 1))] for number in range(count)]
