"""Owns the calculator as a tool: its description and its input."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from schema.tools import RetryClass, ToolDefinition
from services.tools.calculator.errors import CalculationError
from services.tools.calculator.evaluation import calculate
from services.tools.calculator.functions import CONSTANTS, FUNCTIONS
from services.tools.calculator.notation import MAX_CHARS
from services.tools.definition import ToolExecution, ToolOutcome, input_schema

_DESCRIPTION: Final = (
    "Evaluates an arithmetic expression exactly with decimals and whole numbers of any size up to "
    "1,000 digits. Operators: + - * / // % ** and parentheses; `15% of 80` works. "
    f"Functions: {', '.join(FUNCTIONS)}. Constants: {', '.join(CONSTANTS)}. "
    "Angles are in radians; round takes halves away from zero."
)
_INSTRUCTIONS: Final = (
    "Use calculator for every computation instead of calculating in your head. "
    "Write numbers with a decimal point and without thousands separators."
)


class CalculatorInput(BaseModel):
    """What the calculator is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    expression: str = Field(
        min_length=1,
        max_length=MAX_CHARS,
        description="The expression, for example (1 + 2) * sqrt(16) / 3.",
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
