"""The functions and constants that an expression may use.

Circle functions are power series of bounded length with guard digits. Source: Abramowitz and
Stegun, Handbook of Mathematical Functions, 4.3.65, 4.3.66 and 4.4.42.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce
from itertools import count
from typing import Final

from services.tools.calculator.numbers import (
    MAX_BITS,
    MAX_DIGITS,
    NotationError,
    Number,
    TooLargeError,
    UndefinedError,
    add,
    bounded,
    ceil,
    divide,
    floor,
    guarded,
    modulo,
    round_half_up,
    to_decimal,
    trunc,
    whole,
)

_PI: Final = Decimal(
    "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899"
    "86280348253421170679821480865132823066470938446095"
)
# Reduction by multiples of pi costs as many digits as the argument has before the point.
_LARGEST_ANGLE: Final = Decimal("1e30")
# An angle has 50 digits, so its last ones are unknown; a sine or cosine as small as they are is
# zero. Without this, sin(pi) would print as -5.8e-51.
_NOISE: Final = Decimal("1e-48")

_LARGEST_FACTORIAL: Final = 449  # 449! has 998 digits, 450! has 1,001
_LOG10_E: Final = math.log10(math.e)


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
        raise UndefinedError("The base of a logarithm can't be 1.")
    return _log(value, base)


@guarded
def _log(value: Number, base: Number) -> Decimal:
    return _positive(value, "log").ln() / _positive(base, "The base of log").ln()


def _positive(value: Number, caller: str) -> Decimal:
    if value <= 0:
        raise UndefinedError(f"{caller} needs a number above 0.")
    return Decimal(value)


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
    return Decimal(degrees_) * _PI / 180


@guarded
def degrees(radians_: Number) -> Decimal:
    """Return an angle given in radians in degrees."""
    return Decimal(radians_) * 180 / _PI


def _sine_and_cosine(angle: Number) -> tuple[Decimal, Decimal]:
    angle = Decimal(angle)
    if abs(angle) >= _LARGEST_ANGLE:
        raise UndefinedError("An angle must be smaller than 1e30 radians.")
    quarters = (2 * angle / _PI).to_integral_value()
    rest = angle - quarters * _PI / 2
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
        return slope - _PI if y < 0 else slope + _PI
    if not y:
        return Decimal(0)
    return _PI.copy_sign(y) / 2


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


def factorial(value: Number) -> int:
    """Return n!. Errors: TooLargeError above 449."""
    number = _natural(value, "factorial")
    if number > _LARGEST_FACTORIAL:
        raise TooLargeError("The result of this factorial")
    return math.factorial(number)


def gcd(*values: Number) -> int:
    """Return the greatest common divisor."""
    return math.gcd(*(whole(value, caller="gcd") for value in values))


def lcm(*values: Number) -> int:
    """Return the least common multiple."""
    numbers = (whole(value, caller="lcm") for value in values)
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


def _natural(value: Number, caller: str) -> int:
    number = whole(value, caller=caller)
    if number < 0:
        raise UndefinedError(f"{caller} needs non-negative whole numbers.")
    return number


def total(*values: Number) -> Number:
    """Return the sum."""
    return reduce(add, values)


def mean(*values: Number) -> Number:
    """Return the arithmetic mean."""
    return divide(total(*values), len(values))


@dataclass(frozen=True, slots=True)
class Function:
    """A function and how many arguments it takes; `most` is None where there is no limit."""

    call: Callable[..., Number]
    fewest: int = 1
    most: int | None = 1


CONSTANTS: Final[Mapping[str, Callable[[], Decimal]]] = {
    "pi": guarded(lambda: _PI),
    "e": guarded(lambda: Decimal(1).exp()),
    "tau": guarded(lambda: 2 * _PI),
}

FUNCTIONS: Final[Mapping[str, Function]] = {
    "sqrt": Function(sqrt),
    "cbrt": Function(cbrt),
    "hypot": Function(hypot, most=None),
    "exp": Function(exp),
    "ln": Function(ln),
    "log": Function(log, most=2),
    "log10": Function(log10),
    "log2": Function(log2),
    "abs": Function(abs),
    "round": Function(round_half_up, most=2),
    "floor": Function(floor),
    "ceil": Function(ceil),
    "trunc": Function(trunc),
    "min": Function(min, most=None),
    "max": Function(max, most=None),
    "sum": Function(total, most=None),
    "mean": Function(mean, most=None),
    "mod": Function(modulo, fewest=2, most=2),
    "sin": Function(sin),
    "cos": Function(cos),
    "tan": Function(tan),
    "asin": Function(asin),
    "acos": Function(acos),
    "atan": Function(atan),
    "atan2": Function(atan2, fewest=2, most=2),
    "radians": Function(radians),
    "degrees": Function(degrees),
    "factorial": Function(factorial),
    "gcd": Function(gcd, most=None),
    "lcm": Function(lcm, most=None),
    "comb": Function(comb, fewest=2, most=2),
    "perm": Function(perm, fewest=2, most=2),
}


def constant(name: str) -> Number:
    """Return the value of a constant. Errors: NotationError for any other name."""
    if name in FUNCTIONS:
        raise NotationError(f"`{name}` is a function: write {name}(…).")
    if name not in CONSTANTS:
        raise _unknown(name)
    return CONSTANTS[name]()


def call(name: str, arguments: list[Number]) -> Number:
    """Return a function's value. Errors: CalculationError for an unknown name or bad arguments."""
    if name in CONSTANTS:
        raise NotationError(f"`{name}` is a constant: write multiplication as {name} * (…).")
    if name not in FUNCTIONS:
        raise _unknown(name)
    function = FUNCTIONS[name]
    given = len(arguments)
    if given < function.fewest or (function.most is not None and given > function.most):
        raise NotationError(f"{name} takes {_arity(function)}, not {given}.")
    return function.call(*arguments)


def _arity(function: Function) -> str:
    if function.most is None:
        return f"at least {function.fewest} argument"
    if function.most > function.fewest:
        return f"{function.fewest} or {function.most} arguments"
    return f"{function.fewest} argument{'s' if function.fewest > 1 else ''}"


def _unknown(name: str) -> NotationError:
    return NotationError(
        f"Unknown name `{name[:40]}`. Functions: {', '.join(FUNCTIONS)}. "
        f"Constants: {', '.join(CONSTANTS)}."
    )
