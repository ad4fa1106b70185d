"""Owns the functions of whole numbers; each is refused before its result gets large."""

import math
from functools import reduce
from typing import Final

from services.tools.calculator.errors import TooLargeError, UndefinedError
from services.tools.calculator.numbers import MAX_BITS, MAX_DIGITS, Number, bounded, whole

_LARGEST_FACTORIAL: Final = 449  # 449! has 998 digits, 450! has 1,001
_LOG10_E: Final = math.log10(math.e)


def factorial(value: Number) -> int:
    """Return n!. Errors: TooLargeError above 449."""
    number = _natural(value, "factorial")
    if number > _LARGEST_FACTORIAL:
        raise TooLargeError("The result of this factorial")
    return math.factorial(number)


def gcd(*values: Number) -> int:
    """Return the greatest common divisor."""
    return math.gcd(*(whole(value, wanted_by="gcd") for value in values))


def lcm(*values: Number) -> int:
    """Return the least common multiple."""
    numbers = (whole(value, wanted_by="lcm") for value in values)
    return reduce(lambda left, right: bounded(math.lcm(left, right)), numbers, 1)


def comb(of: Number, chosen: Number) -> int:
    """Return the number of ways to choose without order."""
    n, k = _natural(of, "comb"), _natural(chosen, "comb")
    if k > n:
        return 0
    k = min(k, n - k)
    # The result is at least 2 to the power k, and at least n/k to the power k.
    if k > MAX_BITS or (k and k * (math.log10(n) - math.log10(k)) > MAX_DIGITS):
        raise TooLargeError("The result of comb")
    return bounded(math.comb(n, k))


def perm(of: Number, chosen: Number) -> int:
    """Return the number of ways to choose in order."""
    n, k = _natural(of, "perm"), _natural(chosen, "perm")
    if k > n:
        return 0
    # The result is at least k!, and at least n/e to the power k.
    if k > _LARGEST_FACTORIAL or (k and k * (math.log10(n) - _LOG10_E) > MAX_DIGITS):
        raise TooLargeError("The result of perm")
    return bounded(math.perm(n, k))


def _natural(value: Number, who: str) -> int:
    number = whole(value, wanted_by=who)
    if number < 0:
        raise UndefinedError(f"{who} needs whole numbers that are not negative.")
    return number
