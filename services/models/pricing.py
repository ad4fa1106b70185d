"""Prices of tokens: genai-prices, with overrides from the settings.

UnknownPriceError    neither knows the model
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from operator import itemgetter
from typing import Final, NamedTuple

from cachetools import TTLCache
from genai_prices import Usage, calc_price

from schema.usage import ModelPrice, TokenUsage
from services.setup_errors import SetupError

_MOST_MODELS: Final = 100
_PRICED_FOR_S: Final = 3600.0
_MILLION: Final = Decimal(1_000_000)


class UnknownPriceError(SetupError):
    """A model has no price, so no budget can apply to it."""

    def __init__(self, model: str) -> None:
        super().__init__(
            f"No price is known for the model {model!r}. Check EVERTURN_MODELS, or set its price "
            f'in EVERTURN_MODEL_PRICES: {{"{model}": {{"input": "3", "output": "15"}}}} '
            "(USD per million tokens)."
        )


class TokenPrices(NamedTuple):
    """What one token may cost at most. Units: USD."""

    input: Decimal
    output: Decimal


class Pricing:
    """Prices tokens. Units: USD.

    Source: the data of genai-prices, which ships with the package.
    """

    def __init__(self, overrides: Mapping[str, ModelPrice]) -> None:
        self._overrides = dict(overrides)
        # Of an hour: some prices change at a date.
        self._even: TTLCache[str, ModelPrice | None] = TTLCache(_MOST_MODELS, _PRICED_FOR_S)
        self._dearest: dict[tuple[str, int], TokenPrices] = {}

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
        if model not in self._even:
            self._even[model] = self._even_price(model)
        even = self._even[model]
        return self._computed(model, usage) if even is None else _price(even, usage)

    def _even_price(self, model: str) -> ModelPrice | None:
        """Return the price of a model whose tokens cost the same however many there are."""
        kinds = {
            "input": "input_tokens",
            "output": "output_tokens",
            "cache_read": "cache_read_tokens",
            "cache_write": "cache_write_tokens",
        }
        few, many = (
            {
                kind: self._computed(model, TokenUsage(**{tokens: count})) * _MILLION / count
                for kind, tokens in kinds.items()
            }
            for count in (1_000, 10_000_000)
        )
        return ModelPrice(**few) if few == many else None

    def _computed(self, model: str, usage: TokenUsage) -> Decimal:
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

    def saved_by_cache(self, model: str, usage: TokenUsage) -> Decimal:
        """Return what the tokens that were read from a cache would have cost more as input."""
        if not usage.cache_read_tokens:
            return Decimal(0)
        uncached = usage.input_tokens + usage.cache_read_tokens
        update = {"input_tokens": uncached, "cache_read_tokens": 0}
        return self.cost(model, usage.model_copy(update=update)) - self.cost(model, usage)

    def net_saved_by_cache(self, model: str, *, read: int, written: int) -> Decimal:
        """Return what prompts cost less with the cache than without; 0 for an unknown model.

        Units: tokens, of any number of calls; by the price of a short prompt.
        """
        many = 1_000
        try:
            plain = self.cost(model, TokenUsage(input_tokens=many))
            saved = plain - self.cost(model, TokenUsage(cache_read_tokens=many))
            paid = self.cost(model, TokenUsage(cache_write_tokens=many)) - plain
        except UnknownPriceError:
            return Decimal(0)
        return (saved * read - paid * written) / many

    def dearest(self, model: str, *, input_tokens: int) -> TokenPrices:
        """Return what a token of a prompt of this size, and one of its answer, may cost at most.

        A token of the prompt may be written to the cache. Some models cost more where the prompt is
        longer, so prices are those of the next power of two; each is computed once.
        Errors: UnknownPriceError.
        """
        size = 1 << max(input_tokens, 1).bit_length()
        prices = self._dearest.get((model, size))
        if prices is None:
            prices = self._dearest[model, size] = self._dearest_of(model, size)
        return prices

    def _dearest_of(self, model: str, size: int) -> TokenPrices:
        prompts = (TokenUsage(input_tokens=size), TokenUsage(cache_write_tokens=size))
        prompt, cost = max(
            ((prompt, self.cost(model, prompt)) for prompt in prompts), key=itemgetter(1)
        )
        answered = prompt.model_copy(update={"output_tokens": size})
        return TokenPrices(cost / size, (self.cost(model, answered) - cost) / size)


def _price(price: ModelPrice, usage: TokenUsage) -> Decimal:
    return (
        price.input * usage.input_tokens
        + price.output * usage.output_tokens
        + price.cache_read * usage.cache_read_tokens
        + price.cache_write * usage.cache_write_tokens
    ) / _MILLION
