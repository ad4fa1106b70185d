"""Owns the names that an expression may use."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce
from typing import Final

from services.tools.calculator import counting, rounding, trigonometry
from services.tools.calculator import roots_and_logarithms as roots
from services.tools.calculator.errors import NotationError
from services.tools.calculator.numbers import Number, guarded
from services.tools.calculator.operators import add, divide, modulo


@dataclass(frozen=True, slots=True)
class Function:
    """A function and how many arguments it takes; `most` is None where there is no limit."""

    call: Callable[..., Number]
    fewest: int = 1
    most: int | None = 1


def total(*values: Number) -> Number:
    """Return the sum."""
    return reduce(add, values)


def mean(*values: Number) -> Number:
    """Return the arithmetic mean."""
    return divide(total(*values), len(values))


@guarded
def _pi() -> Decimal:
    return trigonometry.PI


@guarded
def _tau() -> Decimal:
    return 2 * trigonometry.PI


@guarded
def _e() -> Decimal:
    return Decimal(1).exp()


CONSTANTS: Final[Mapping[str, Callable[[], Decimal]]] = {"pi": _pi, "e": _e, "tau": _tau}

FUNCTIONS: Final[Mapping[str, Function]] = {
    "sqrt": Function(roots.sqrt),
    "cbrt": Function(roots.cbrt),
    "hypot": Function(roots.hypot, most=None),
    "exp": Function(roots.exp),
    "ln": Function(roots.ln),
    "log": Function(roots.log, most=2),
    "log10": Function(roots.log10),
    "log2": Function(roots.log2),
    "abs": Function(abs),
    "round": Function(rounding.nearest, most=2),
    "floor": Function(rounding.floor),
    "ceil": Function(rounding.ceil),
    "trunc": Function(rounding.trunc),
    "min": Function(min, most=None),
    "max": Function(max, most=None),
    "sum": Function(total, most=None),
    "mean": Function(mean, most=None),
    "mod": Function(modulo, fewest=2, most=2),
    "sin": Function(trigonometry.sin),
    "cos": Function(trigonometry.cos),
    "tan": Function(trigonometry.tan),
    "asin": Function(trigonometry.asin),
    "acos": Function(trigonometry.acos),
    "atan": Function(trigonometry.atan),
    "atan2": Function(trigonometry.atan2, fewest=2, most=2),
    "radians": Function(trigonometry.radians),
    "degrees": Function(trigonometry.degrees),
    "factorial": Function(counting.factorial),
    "gcd": Function(counting.gcd, most=None),
    "lcm": Function(counting.lcm, most=None),
    "comb": Function(counting.comb, fewest=2, most=2),
    "perm": Function(counting.perm, fewest=2, most=2),
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
        raise NotationError(f"`{name}` is a number: write multiplication as {name} * (…).")
    if name not in FUNCTIONS:
        raise _unknown(name)
    function = FUNCTIONS[name]
    count = len(arguments)
    if count < function.fewest or (function.most is not None and count > function.most):
        raise NotationError(f"{name} takes {_arity(function)}, not {count}.")
    return function.call(*arguments)


def _arity(function: Function) -> str:
    if function.most is None:
        return f"at least {function.fewest} argument"
    if function.most > function.fewest:
        return f"{function.fewest} or {function.most} arguments"
    return f"{function.fewest} argument{'s' if function.fewest > 1 else ''}"


def _unknown(name: str) -> NotationError:
    return NotationError(
        f"The name `{name[:40]}` is not known. Functions: {', '.join(FUNCTIONS)}. "
        f"Constants: {', '.join(CONSTANTS)}."
    )
