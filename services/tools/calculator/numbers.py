"""The calculator's numbers: errors, bounds, precision, arithmetic, rounding and how they print.

Whole numbers are Python integers, exact up to 1,000 digits; everything else is a decimal of 50
digits. The context's Inexact flag remembers whether any step was rounded.

CalculationError
├── NotationError
├── UndefinedError
├── TooLargeError
└── TooSmallError
"""

import math
from collections.abc import Callable
from decimal import (
    MAX_EMAX,
    MIN_EMIN,
    ROUND_CEILING,
    ROUND_DOWN,
    ROUND_FLOOR,
    ROUND_HALF_UP,
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
# Holds any number of the calculator in full, so that rounding rounds once.
_WIDE: Final = Context(prec=3 * MAX_DIGITS)

_SHOWN_DIGITS: Final = 28
_SMALLEST_PLAIN_EXPONENT: Final = -20

Arguments = ParamSpec("Arguments")


class CalculationError(Exception):
    """The expression has no answer; the message says why."""


class NotationError(CalculationError):
    """The text is not an expression that the calculator reads."""


class UndefinedError(CalculationError):
    """The operation has no real result for these numbers."""


class TooLargeError(CalculationError):
    """A number is beyond what the calculator works with."""

    def __init__(
        self, what: str = "A number in this expression", limit: str = "1,000 digits"
    ) -> None:
        super().__init__(f"{what} is too large: the limit is {limit}.")


class TooSmallError(CalculationError):
    """A number is closer to zero than the calculator works with."""

    def __init__(self) -> None:
        super().__init__(
            "A number in this expression is too close to zero: the limit is about 1e-1000."
        )


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
    """Return whether a step of this calculation has lost digits."""
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


def whole(value: Number, *, caller: str) -> int:
    """Return an integral number as an integer. Errors: UndefinedError for a fraction."""
    value = trusted(value)
    if isinstance(value, Decimal) and value != value.to_integral_value():
        raise UndefinedError(f"{caller} needs whole numbers.")
    return int(value)


def add(left: Number, right: Number) -> Number:
    """Return the sum."""
    if isinstance(left, int) and isinstance(right, int):
        return bounded(left + right)
    first, second = to_decimal(left), to_decimal(right)
    return without_noise(first + second, first, second)


def negate(value: Number) -> Number:
    """Return the number with the other sign."""
    return -value


def subtract(left: Number, right: Number) -> Number:
    """Return the difference."""
    return add(left, negate(right))


def multiply(left: Number, right: Number) -> Number:
    """Return the product."""
    if isinstance(left, int) and isinstance(right, int):
        return bounded(left * right)
    return to_decimal(left) * to_decimal(right)


def divide(left: Number, right: Number) -> Number:
    """Return the quotient, an integer where two integers divide. Errors: UndefinedError by zero."""
    _check_divisor(right)
    if isinstance(left, int) and isinstance(right, int) and left % right == 0:
        return left // right
    return to_decimal(left) / to_decimal(right)


def floor_divide(left: Number, right: Number) -> Number:
    """Return the quotient rounded down, as Python's `//` does."""
    return _floor_and_rest(left, right)[0]


def modulo(left: Number, right: Number) -> Number:
    """Return the remainder with the divisor's sign, as Python's `%` does."""
    return _floor_and_rest(left, right)[1]


def power(base: Number, exponent: Number) -> Number:
    """Return `base` to the power `exponent`; anything to the power 0 is 1.

    Errors: UndefinedError for a result that is not real, and for zero to a negative power;
    TooLargeError before anything large is computed.
    """
    if exponent == 0:
        return 1
    if isinstance(base, int) and isinstance(exponent, int) and exponent > 0:
        return _integer_power(base, exponent)
    if base == 0 and exponent < 0:
        raise UndefinedError("Zero can't be raised to a negative power: that divides by zero.")
    if base < 0 and exponent != int(exponent):
        raise UndefinedError(
            "A negative number to a fractional power is not a real number: "
            "for a cube root use cbrt(x)."
        )
    return to_decimal(base) ** _decimal_exponent(exponent)


def _check_divisor(divisor: Number) -> None:
    if divisor == 0:
        raise UndefinedError("Division by zero is undefined.")


def _floor_and_rest(left: Number, right: Number) -> tuple[Number, Number]:
    _check_divisor(right)
    if isinstance(left, int) and isinstance(right, int):
        return divmod(left, right)
    dividend, divisor = to_decimal(trusted(left)), to_decimal(trusted(right))
    if dividend and dividend.adjusted() - divisor.adjusted() >= 49:
        raise TooLargeError("The quotient of a division with remainder", "49 digits")
    quotient, rest = divmod(dividend, divisor)
    # Decimal's remainder has the sign of the dividend.
    if rest and rest.is_signed() != divisor.is_signed():
        return int(quotient) - 1, rest + divisor
    return int(quotient), rest


def _integer_power(base: int, exponent: int) -> int:
    if abs(base) <= 1:
        return base if exponent % 2 else abs(base)
    if exponent * (base.bit_length() - 1) > MAX_BITS:
        raise TooLargeError("The result of this power")
    return bounded(base**exponent)


def _decimal_exponent(exponent: Number) -> Decimal:
    # Beyond the precision an exponent would lose its last digit, and with it the sign of (-1)**n.
    if not -(10**40) < exponent < 10**40:
        raise TooLargeError("An exponent", "40 digits")
    return to_decimal(exponent)


def round_half_up(value: Number, places: Number = 0) -> Number:
    """Return the number rounded to decimal places, halves away from zero.

    Halves go away from zero because that is what people are taught; Python's own `round` takes
    them to the even neighbour. Errors: UndefinedError for places beyond 1,000.
    """
    digits = whole(places, caller="The second argument of round")
    if abs(digits) > MAX_DIGITS:
        raise UndefinedError("round takes -1000 to 1000 decimal places.")
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


def format_number(value: Number) -> str:
    """Return a result in the shortest plain form, with an exponent only where it is far from 1.

    A result that took rounded steps is rounded to 28 digits, so that sqrt(2)**2 prints as 2.
    """
    if isinstance(value, int):
        return str(value)
    digits = _SHOWN_DIGITS if was_rounded() else PRECISION
    return _plain(Context(prec=digits).normalize(value), digits)


def _plain(value: Decimal, digits: int) -> str:
    if not value:
        return "0"
    if _SMALLEST_PLAIN_EXPONENT <= value.adjusted() < digits:
        return f"{value:f}"
    return f"{value:e}"
