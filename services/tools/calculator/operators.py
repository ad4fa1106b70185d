"""Owns the operators: exact on integers, 50 digits on decimals, refused before they get costly."""

from decimal import Decimal

from services.tools.calculator.errors import TooLargeError, UndefinedError
from services.tools.calculator.numbers import (
    MAX_BITS,
    Number,
    bounded,
    to_decimal,
    trusted,
    without_noise,
)


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
        raise UndefinedError("Zero cannot be raised to a negative power: that divides by zero.")
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
