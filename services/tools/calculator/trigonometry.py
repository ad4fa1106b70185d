"""Owns the circle functions on decimals, by series of bounded length with guard digits.

Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 4.3.65, 4.3.66 and 4.4.42.
"""

from decimal import Decimal
from itertools import count
from typing import Final

from services.tools.calculator.errors import UndefinedError
from services.tools.calculator.numbers import Number, guarded

PI: Final = Decimal(
    "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899"
    "86280348253421170679821480865132823066470938446095"
)
# Reduction by multiples of pi costs as many digits as the argument has before the point.
_LARGEST_ANGLE: Final = Decimal("1e30")
# An angle has 50 digits, so its last ones are unknown; a sine or cosine as small as they are is
# zero. Without this, sin(pi) would print as -5.8e-51.
_NOISE: Final = Decimal("1e-48")


@guarded
def sin(angle: Number) -> Decimal:
    """Return the sine. Units: radians."""
    return _sine_and_cosine(angle)[0]


@guarded
def cos(angle: Number) -> Decimal:
    """Return the cosine. Units: radians."""
    return _sine_and_cosine(angle)[1]


@guarded
def tan(angle: Number) -> Decimal:
    """Return the tangent. Units: radians. Errors: UndefinedError at its poles."""
    sine, cosine = _sine_and_cosine(angle)
    if not cosine:
        raise UndefinedError("tan is undefined at odd multiples of pi/2.")
    return sine / cosine


@guarded
def asin(value: Number) -> Decimal:
    """Return the arc sine. Units: radians. Errors: UndefinedError outside -1 to 1."""
    sine = _in_domain(value, "asin")
    return _arc_tangent_2(sine, ((1 - sine) * (1 + sine)).sqrt())


@guarded
def acos(value: Number) -> Decimal:
    """Return the arc cosine. Units: radians. Errors: UndefinedError outside -1 to 1."""
    cosine = _in_domain(value, "acos")
    return _arc_tangent_2(((1 - cosine) * (1 + cosine)).sqrt(), cosine)


@guarded
def atan(value: Number) -> Decimal:
    """Return the arc tangent. Units: radians."""
    return _arc_tangent(Decimal(value))


@guarded
def atan2(y: Number, x: Number) -> Decimal:
    """Return the angle of the point (x, y). Units: radians, above -pi and up to pi."""
    return _arc_tangent_2(Decimal(y), Decimal(x))


@guarded
def radians(degrees_: Number) -> Decimal:
    """Return an angle given in degrees in radians."""
    return Decimal(degrees_) * PI / 180


@guarded
def degrees(radians_: Number) -> Decimal:
    """Return an angle given in radians in degrees."""
    return Decimal(radians_) * 180 / PI


def _sine_and_cosine(angle: Number) -> tuple[Decimal, Decimal]:
    angle = Decimal(angle)
    if abs(angle) >= _LARGEST_ANGLE:
        raise UndefinedError("An angle must be smaller than 1e30 radians.")
    quarters = (2 * angle / PI).to_integral_value()
    rest = angle - quarters * PI / 2
    sine, cosine = _alternating(rest, rest, 1), _alternating(Decimal(1), rest, 0)
    rotated = [(sine, cosine), (cosine, -sine), (-sine, -cosine), (-cosine, sine)]
    noise = abs(angle) * _NOISE
    first, second = rotated[int(quarters) % 4]
    return _unless_noise(first, noise), _unless_noise(second, noise)


def _unless_noise(value: Decimal, noise: Decimal) -> Decimal:
    return value if abs(value) > noise else Decimal(0)


def _alternating(term: Decimal, angle: Decimal, degree: int) -> Decimal:
    """Sum the sine's or the cosine's power series from its first term on."""
    square, total = angle * angle, term
    for last in count(degree + 2, 2):
        term = -term * square / (last * (last - 1))
        if total + term == total:
            break
        total += term
    return total


def _arc_tangent_2(y: Decimal, x: Decimal) -> Decimal:
    if x:
        slope = _arc_tangent(y / x)
        if x > 0:
            return slope
        return slope - PI if y < 0 else slope + PI
    if not y:
        return Decimal(0)
    return PI.copy_sign(y) / 2


def _arc_tangent(value: Decimal) -> Decimal:
    halvings = 0
    while abs(value) > Decimal("0.1"):
        value /= 1 + (1 + value * value).sqrt()
        halvings += 1
    return _arc_tangent_series(value) * Decimal(2) ** halvings


def _arc_tangent_series(value: Decimal) -> Decimal:
    square, power, total = value * value, value, value
    for divisor in count(3, 2):
        power *= -square
        term = power / divisor
        if total + term == total:
            break
        total += term
    return total


def _in_domain(value: Number, name: str) -> Decimal:
    if not -1 <= value <= 1:
        raise UndefinedError(f"{name} needs a number from -1 to 1.")
    return Decimal(value)
