"""Corrects estimates by what the provider counted last in the same chat, at the same model."""

from dataclasses import dataclass
from typing import Final

LEAST_CORRECTION: Final = 0.5
_MOST: Final = 2.5
_WEIGHT_OF_ONE: Final = 1_000
"""Tokens that count as estimated rightly: what a short prompt says of a long one is little."""


@dataclass(frozen=True, slots=True)
class LastCount:
    """What the provider counted of a prompt, cached parts included, and what was estimated."""

    counted: int
    estimated: int


def correction_by(last: LastCount | None) -> float:
    """Return by how much to multiply the next estimate."""
    if last is None:
        return 1.0
    ratio = (last.counted + _WEIGHT_OF_ONE) / (last.estimated + _WEIGHT_OF_ONE)
    return round(min(max(ratio, LEAST_CORRECTION), _MOST), 3)
