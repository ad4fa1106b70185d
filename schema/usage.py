"""Token usage, its sums, and prices of tokens."""

from decimal import Decimal

from pydantic import BaseModel, Field

from schema.wire import WireModel


class TokenUsage(WireModel):
    """Tokens of one or more model calls. `inputTokens` excludes cached tokens."""

    input_tokens: int = Field(0, ge=0)
    output_tokens: int = Field(0, ge=0)
    cache_read_tokens: int = Field(0, ge=0)
    cache_write_tokens: int = Field(0, ge=0)

    def __add__(self, other: "TokenUsage") -> "TokenUsage":
        """Return the sum of both."""
        return TokenUsage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_read_tokens=self.cache_read_tokens + other.cache_read_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
        )


class ModelPrice(BaseModel):
    """A price that overrides the one of genai-prices. Units: USD per million tokens."""

    input: Decimal
    output: Decimal
    cache_read: Decimal = Decimal(0)
    cache_write: Decimal = Decimal(0)
