"""Owns what `deep_reasoning` is and takes; asking the model is `tool.py`'s."""

from datetime import timedelta
from decimal import Decimal
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from schema.tools import RetryClass, ToolDefinition
from schema.usage import TokenUsage
from services.models.pricing import Pricing
from services.tools.definition import input_schema

_DESCRIPTION: Final = (
    "Asks a stronger model to think a hard question through: mathematics, logic, planning, "
    "analysis of code or argument. It sees nothing of this conversation, takes up to minutes, and "
    "answers in text."
)
_INSTRUCTIONS: Final = (
    "Use deep_reasoning only for questions that need long, careful thought; state the question "
    "fully, and put what it is about into context. Judge its answer before you pass it on."
)
_USUAL_INPUT_TOKENS: Final = 2_000


class DeepReasoningInput(BaseModel):
    """A question, and what is to be known for it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    question: str = Field(
        min_length=1,
        max_length=8_000,
        pattern=r"\S",
        description="The whole question, understandable by itself.",
    )
    context: str = Field(
        "", max_length=20_000, description="Facts, code or text that the question is about."
    )


def deep_reasoning(model: str, *, pricing: Pricing, max_tokens: int) -> ToolDefinition:
    """Return the tool, at the cost of a usual call: half of the longest answer.

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
        instructions=_INSTRUCTIONS,
    )


def estimated_cost(pricing: Pricing, model: str, *, input_tokens: int, max_tokens: int) -> Decimal:
    """Return what a call may cost, as far as that is known before it is made.

    Errors: UnknownPriceError.
    """
    usage = TokenUsage(input_tokens=input_tokens, output_tokens=max_tokens // 2)
    return pricing.cost(model, usage)
