"""Owns the way from an expression to its printed value.

Nothing is ever given to Python's `eval`: the syntax tree is walked, and what is not arithmetic
is refused.
"""

import ast
from collections.abc import Callable, Mapping
from decimal import (
    Decimal,
    DivisionByZero,
    InvalidOperation,
    Overflow,
    Subnormal,
    getcontext,
    localcontext,
)
from typing import Final

from services.tools.calculator import operators
from services.tools.calculator.display import shown
from services.tools.calculator.errors import (
    NotationError,
    TooLargeError,
    TooSmallError,
    UndefinedError,
)
from services.tools.calculator.functions import call, constant
from services.tools.calculator.notation import parse
from services.tools.calculator.numbers import CONTEXT, Number, bounded

_BINARY: Final[Mapping[type[ast.operator], Callable[[Number, Number], Number]]] = {
    ast.Add: operators.add,
    ast.Sub: operators.subtract,
    ast.Mult: operators.multiply,
    ast.Div: operators.divide,
    ast.FloorDiv: operators.floor_divide,
    ast.Mod: operators.modulo,
    ast.Pow: operators.power,
}
_ONLY_ARITHMETIC: Final = (
    "Only arithmetic is understood: numbers, + - * / // % **, parentheses and function calls "
    "with plain arguments. A comma separates arguments; it is no decimal sign."
)


def calculate(expression: str) -> str:
    """Return the value of an expression: in full if exact, else to 28 significant digits.

    Errors: CalculationError, and nothing else, for any text.
    """
    tree, text = parse(expression)
    with localcontext(CONTEXT):
        try:
            return shown(_Evaluation(text).run(tree))
        except Overflow as error:
            raise TooLargeError from error
        except Subnormal as error:
            raise TooSmallError from error
        except (InvalidOperation, DivisionByZero) as error:
            raise UndefinedError("This expression has no defined value.") from error


class _Evaluation:
    """The values of one syntax tree's nodes, computed from the leaves up."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._values: dict[ast.AST, Number] = {}

    def run(self, tree: ast.expr) -> Number:
        # Breadth-first order reversed has every child before its parent: no recursion to bound.
        for node in reversed(list(ast.walk(tree))):
            self._visit(node)
        return self._value(tree)

    def _visit(self, node: ast.AST) -> None:
        match node:
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _BINARY:
                compute = _BINARY[type(operator)]
                self._values[node] = compute(self._value(left), self._value(right))
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                self._values[node] = self._value(operand)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                self._values[node] = operators.negate(self._value(operand))
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
                self._values[node] = call(name, [self._value(argument) for argument in arguments])
            case ast.Constant() | ast.Name() | ast.operator() | ast.unaryop() | ast.expr_context():
                pass  # read where they are used: a name may be a function's
            case _:
                raise NotationError(_ONLY_ARITHMETIC)

    def _value(self, node: ast.expr) -> Number:
        match node:
            case ast.Constant(value=int(value)):
                return bounded(value)
            case ast.Constant():
                return self._decimal(node)
            case ast.Name(id=name):
                return constant(name)
            case _:
                return self._values[node]

    def _decimal(self, node: ast.Constant) -> Decimal:
        # The tree holds a binary float; the digits as written are in the text.
        written = self._text[node.col_offset : node.end_col_offset]
        return getcontext().create_decimal(written)
