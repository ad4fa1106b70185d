"""Owns the ways to cut a number's decimals."""

from decimal import (
    ROUND_CEILING,
    ROUND_DOWN,
    ROUND_FLOOR,
    ROUND_HALF_UP,
    Context,
    Decimal,
)
from typing import Final

from services.tools.calculator.errors import UndefinedError
from services.tools.calculator.numbers import MAX_DIGITS, PRECISION, Number, trusted, whole

# Holds any number of the calculator in full, so that rounding rounds once.
_WIDE: Final = Context(prec=3 * MAX_DIGITS)


def nearest(value: Number, places: Number = 0) -> Number:
    """Return the number rounded to decimal places, halves away from zero.

    Halves go away from zero because that is what people are taught; Python's own `round` takes
    them to the even neighbour. Errors: UndefinedError for places beyond 1,000.
    """
    digits = whole(places, wanted_by="The second argument of round")
    if abs(digits) > MAX_DIGITS:
        raise UndefinedError("round needs a number of decimal places from -1000 to 1000.")
    settled = trusted(value)
    exact = Decimal(settled)
    rounded = exact.quantize(Decimal((0, (1,), -digits)), ROUND_HALF_UP, context=_WIDE)
    if rounded == exact:
        return settled
    return int(rounded) if digits <= 0 else rounded


def floor(value: Number) -> Number:
    """Return the largest whole number that is not above this one."""
    return _to_whole(value, ROUND_FLOOR)


def ceil(value: Number) -> Number:
    """Return the smallest whole number that is not below this one."""
    return _to_whole(value, ROUND_CEILING)


def trunc(value: Number) -> Number:
    """Return the number without its decimals."""
    return _to_whole(value, ROUND_DOWN)


def _to_whole(value: Number, rounding: str) -> Number:
    # A number that fills its 50 digits before the point has no decimals to cut.
    if isinstance(value, int) or value.adjusted() >= PRECISION - 1:
        return value
    return int(Decimal(trusted(value)).to_integral_value(rounding))
