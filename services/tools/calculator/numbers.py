"""Owns the calculator's numbers: their bounds, their precision and what counts as noise.

Whole numbers stay Python integers and are exact up to 1,000 digits; everything else is a decimal
of 50 digits. The context's Inexact flag remembers whether any step was rounded.
"""

import math
from collections.abc import Callable
from decimal import (
    MAX_EMAX,
    MIN_EMIN,
    Context,
    Decimal,
    DivisionByZero,
    Inexact,
    InvalidOperation,
    Overflow,
    Subnormal,
    getcontext,
    localcontext,
)
from functools import wraps
from typing import Final, ParamSpec, TypeAlias

from services.tools.calculator.errors import TooLargeError, UndefinedError

Number: TypeAlias = int | Decimal

PRECISION: Final = 50
MAX_DIGITS: Final = 1_000
_LIMIT: Final = 10**MAX_DIGITS
MAX_BITS: Final = math.ceil(MAX_DIGITS * math.log2(10))

# After a rounded step the last digits are noise: what cancels down to them is zero, and what is
# cut to a whole number is first rounded to the digits that can be trusted.
_TRUSTED: Final = Context(prec=40)

CONTEXT: Final = Context(
    prec=PRECISION,
    Emax=MAX_DIGITS,
    Emin=-MAX_DIGITS,
    traps=[InvalidOperation, DivisionByZero, Overflow, Subnormal],
)
# Guard digits, so that what a series yields is right to the last of the 50 digits.
_GUARDED: Final = Context(
    prec=2 * PRECISION,
    Emax=MAX_EMAX,
    Emin=MIN_EMIN,
    traps=[InvalidOperation, DivisionByZero, Overflow],
)

Arguments = ParamSpec("Arguments")


def guarded(function: Callable[Arguments, Decimal]) -> Callable[Arguments, Decimal]:
    """Compute with 100 digits and round the result to the caller's precision."""

    @wraps(function)
    def rounded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Decimal:
        with localcontext(_GUARDED):
            result = function(*args, **kwargs)
        return +result

    return rounded


def to_decimal(value: Number) -> Decimal:
    """Return the number as a decimal of the current precision."""
    return getcontext().create_decimal(value)


def was_rounded() -> bool:
    """Tell whether a step of this calculation has lost digits."""
    return getcontext().flags[Inexact]


def bounded(value: int) -> int:
    """Return the integer. Errors: TooLargeError above 1,000 digits."""
    if not -_LIMIT < value < _LIMIT:
        raise TooLargeError
    return value


def trusted(value: Number) -> Number:
    """Return the number without the noise of rounded steps, so that 2.999…9 is 3."""
    if isinstance(value, Decimal) and was_rounded():
        return _TRUSTED.plus(value)
    return value


def without_noise(result: Decimal, *operands: Decimal) -> Decimal:
    """Return zero for a sum that consists of nothing but its operands' rounding errors."""
    largest = max(operand.adjusted() for operand in operands)
    if was_rounded() and result.adjusted() < largest - (PRECISION - 4):
        return Decimal(0)
    return result


def whole(value: Number, *, wanted_by: str) -> int:
    """Return an integral number as an integer. Errors: UndefinedError for a fraction."""
    value = trusted(value)
    if isinstance(value, Decimal) and value != value.to_integral_value():
        raise UndefinedError(f"{wanted_by} needs whole numbers.")
    return int(value)
