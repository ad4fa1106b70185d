"""The definition and input of `deep_reasoning`; `tool.py` calls the model."""

from datetime import timedelta
from decimal import Decimal
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from schema.tools import RetryClass, ToolDefinition
from schema.usage import TokenUsage
from services.models.pricing import Pricing
from services.tools.definition import input_schema

_DESCRIPTION: Final = (
    "Asks a stronger model to think through a hard question: mathematics, logic, planning, "
    "analysis of code or arguments. It does not see this conversation, can take minutes, and "
    "answers in text."
)
_INSTRUCTIONS: Final = (
    "Use deep_reasoning only for questions that need long, careful thought; state the question "
    "in full, and put the material into context. Check its answer before you pass it on."
)
_USUAL_INPUT_TOKENS: Final = 2_000


class DeepReasoningInput(BaseModel):
    """A question and the material for it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    question: str = Field(
        min_length=1,
        max_length=8_000,
        pattern=r"\S",
        description="The whole question, understandable on its own.",
    )
    context: str = Field(
        "", max_length=20_000, description="Facts, code or text that the question is about."
    )


def deep_reasoning(model: str, *, pricing: Pricing, max_tokens: int) -> ToolDefinition:
    """Return the tool's definition; its cost is that of a usual call: half of the longest answer.

    Errors: UnknownPriceError.
    """
    return ToolDefinition(
        name="deep_reasoning",
        description=_DESCRIPTION,
        input_schema=input_schema(DeepReasoningInput),
        timeout=timedelta(minutes=5),
        retry_class=RetryClass.IDEMPOTENT,
        cost_usd=estimated_cost(
            pricing, model, input_tokens=_USUAL_INPUT_TOKENS, max_tokens=max_tokens
        ),
        # Of a usual call: less may be left, and still be enough for a shorter answer.
        meters_itself=True,
        instructions=_INSTRUCTIONS,
    )


def estimated_cost(pricing: Pricing, model: str, *, input_tokens: int, max_tokens: int) -> Decimal:
    """Return the estimated cost of a call.

    Errors: UnknownPriceError.
    """
    usage = TokenUsage(input_tokens=input_tokens, output_tokens=max_tokens // 2)
    return pricing.cost(model, usage)
