"""Owns roots, logarithms and the exponential function."""

import math
from decimal import Decimal

from services.tools.calculator.errors import UndefinedError
from services.tools.calculator.numbers import Number, guarded, to_decimal


def sqrt(value: Number) -> Number:
    """Return the square root, an integer for a perfect square. Errors: UndefinedError below 0."""
    if value < 0:
        raise UndefinedError("sqrt of a negative number is not a real number.")
    if isinstance(value, int) and (root := math.isqrt(value)) ** 2 == value:
        return root
    return to_decimal(value).sqrt()


@guarded
def cbrt(value: Number) -> Decimal:
    """Return the cube root, negative for a negative number."""
    magnitude = abs(Decimal(value))
    root = magnitude ** (Decimal(1) / 3) if magnitude else magnitude
    return -root if value < 0 else root


@guarded
def hypot(*sides: Number) -> Decimal:
    """Return the length of a vector."""
    return sum((Decimal(side) ** 2 for side in sides), Decimal(0)).sqrt()


def exp(value: Number) -> Decimal:
    """Return e to the power of a number."""
    return to_decimal(value).exp()


@guarded
def ln(value: Number) -> Decimal:
    """Return the natural logarithm. Errors: UndefinedError at and below 0."""
    return _positive(value, "ln").ln()


@guarded
def log10(value: Number) -> Decimal:
    """Return the logarithm to base 10. Errors: UndefinedError at and below 0."""
    return _positive(value, "log10").log10()


@guarded
def log2(value: Number) -> Decimal:
    """Return the logarithm to base 2. Errors: UndefinedError at and below 0."""
    return _positive(value, "log2").ln() / Decimal(2).ln()


def log(value: Number, base: Number | None = None) -> Decimal:
    """Return the logarithm to the given base. Errors: UndefinedError without one.

    A single argument means base 10 on pocket calculators and base e in Python: asking beats
    guessing.
    """
    if base is None:
        raise UndefinedError("log needs a base: use log(x, base), ln(x) or log10(x).")
    if base == 1:
        raise UndefinedError("The base of a logarithm cannot be 1.")
    return _log(value, base)


@guarded
def _log(value: Number, base: Number) -> Decimal:
    return _positive(value, "log").ln() / _positive(base, "The base of log").ln()


def _positive(value: Number, who: str) -> Decimal:
    if value <= 0:
        raise UndefinedError(f"{who} needs a number above 0.")
    return Decimal(value)
