"""Prices of tokens: genai-prices, with overrides from the settings.

UnknownPriceError    neither knows the model
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Final

from genai_prices import Usage, calc_price

from schema.usage import ModelPrice, TokenUsage
from services.setup_errors import SetupError

_MILLION: Final = Decimal(1_000_000)


class UnknownPriceError(SetupError):
    """A model has no price, so no budget can apply to it."""

    def __init__(self, model: str) -> None:
        super().__init__(
            f"No price is known for the model {model!r}. Check EVERTURN_MODELS, or set its price "
            f'in EVERTURN_MODEL_PRICES: {{"{model}": {{"input": "3", "output": "15"}}}} '
            "(USD per million tokens)."
        )


class Pricing:
    """Prices tokens. Units: USD.

    Source: the data of genai-prices, which ships with the package.
    """

    def __init__(self, overrides: Mapping[str, ModelPrice]) -> None:
        self._overrides = dict(overrides)

    def require(self, models: Iterable[str]) -> None:
        """Check that each model has a price.

        Errors: UnknownPriceError.
        """
        for model in models:
            self.cost(model, TokenUsage(input_tokens=1))

    def cost(self, model: str, usage: TokenUsage) -> Decimal:
        """Return what the tokens cost.

        Errors: UnknownPriceError.
        """
        override = self._overrides.get(model)
        if override is not None:
            return _price(override, usage)
        try:
            price = calc_price(
                Usage(
                    # genai-prices counts cached tokens as part of the input.
                    input_tokens=usage.input_tokens
                    + usage.cache_read_tokens
                    + usage.cache_write_tokens,
                    cache_read_tokens=usage.cache_read_tokens,
                    cache_write_tokens=usage.cache_write_tokens,
                    output_tokens=usage.output_tokens,
                ),
                model_ref=model,
                provider_id="anthropic",
            )
        except LookupError as error:
            raise UnknownPriceError(model) from error
        return price.total_price


def _price(price: ModelPrice, usage: TokenUsage) -> Decimal:
    return (
        price.input * usage.input_tokens
        + price.output * usage.output_tokens
        + price.cache_read * usage.cache_read_tokens
        + price.cache_write * usage.cache_write_tokens
    ) / _MILLION
