"""Token usage, its sums, and prices of tokens."""

from decimal import Decimal
from typing import Annotated, Final, TypeAlias

from pydantic import BaseModel, Field

from schema.wire import WireModel

_CACHE_READ: Final = Decimal("0.1")
_CACHE_WRITE: Final = Decimal("1.25")

Price: TypeAlias = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]


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
    """A price that overrides the one of genai-prices. Units: USD per million tokens.

    Cached tokens cost what Anthropic takes for them, unless the price says otherwise: a tenth of
    the input price to read, a quarter more than it to write.
    """

    input: Price
    output: Price
    cache_read: Price = Field(default_factory=lambda price: price["input"] * _CACHE_READ)
    cache_write: Price = Field(default_factory=lambda price: price["input"] * _CACHE_WRITE)
