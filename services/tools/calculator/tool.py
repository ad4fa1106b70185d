"""The `calculator` tool: its description, its input and the evaluation of expressions."""

import ast
from collections.abc import Callable, Mapping
from datetime import timedelta
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

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from schema.tools import RetryClass, ToolDefinition
from services.tools.calculator.functions import CONSTANTS, FUNCTIONS, call, constant
from services.tools.calculator.numbers import (
    CONTEXT,
    CalculationError,
    NotationError,
    Number,
    TooLargeError,
    TooSmallError,
    UndefinedError,
    add,
    bounded,
    divide,
    floor_divide,
    format_number,
    modulo,
    multiply,
    negate,
    power,
    subtract,
)
from services.tools.calculator.parsing import MAX_CHARS, parse
from services.tools.definition import ToolExecution, ToolOutcome, input_schema

_DESCRIPTION: Final = (
    "Evaluates an arithmetic expression, exactly for decimals and for whole numbers of up to 1,000 "
    "digits. Operators: + - * / // % ** ! and parentheses; `15% of 80` works. "
    f"Functions: {', '.join(FUNCTIONS)}. Constants: {', '.join(CONSTANTS)}. "
    "Angles are in radians; round rounds halves away from zero."
)
_INSTRUCTIONS: Final = (
    "Use calculator for every computation instead of calculating in your head. "
    "Write numbers with a decimal point and without thousands separators."
)
_OPERATORS: Final[Mapping[type[ast.operator], Callable[[Number, Number], Number]]] = {
    ast.Add: add,
    ast.Sub: subtract,
    ast.Mult: multiply,
    ast.Div: divide,
    ast.FloorDiv: floor_divide,
    ast.Mod: modulo,
    ast.Pow: power,
}
_ONLY_ARITHMETIC: Final = (
    "Only arithmetic is supported: numbers, + - * / // % ** !, parentheses and function calls with "
    "plain arguments. A comma separates arguments and is not a decimal point."
)


class CalculatorInput(BaseModel):
    """The calculator's input."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    expression: str = Field(
        min_length=1,
        max_length=MAX_CHARS,
        description="The expression, e.g. (1 + 2) * sqrt(16) / 3.",
    )


class Calculator:
    """A tool that evaluates arithmetic expressions with bounded work."""

    definition: Final = ToolDefinition(
        name="calculator",
        description=_DESCRIPTION,
        input_schema=input_schema(CalculatorInput),
        timeout=timedelta(seconds=5),
        retry_class=RetryClass.IDEMPOTENT,
        instant=True,
        instructions=_INSTRUCTIONS,
    )

    async def run(
        self, tool_input: Mapping[str, JsonValue], _execution: ToolExecution, /
    ) -> ToolOutcome:
        """Return the expression's value, or what is wrong with the expression."""
        asked = CalculatorInput.model_validate(tool_input)
        try:
            return ToolOutcome(output=calculate(asked.expression))
        except CalculationError as error:
            return ToolOutcome(output=str(error), is_error=True)


def calculate(expression: str) -> str:
    """Return the value of an expression: in full if exact, else to 28 significant digits.

    Errors: CalculationError, and nothing else, for any text.
    """
    tree, text = parse(expression)
    with localcontext(CONTEXT):
        try:
            return format_number(_Evaluation(text).run(tree))
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
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS:
                compute = _OPERATORS[type(operator)]
                self._values[node] = compute(self._value(left), self._value(right))
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                self._values[node] = self._value(operand)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                self._values[node] = negate(self._value(operand))
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
