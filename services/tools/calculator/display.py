"""Owns how a result is printed."""

from decimal import Context, Decimal
from typing import Final

from services.tools.calculator.numbers import PRECISION, Number, was_rounded

_SHOWN_DIGITS: Final = 28
_SMALLEST_PLAIN_EXPONENT: Final = -20


def shown(value: Number) -> str:
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
