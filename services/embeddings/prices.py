"""Owns what embedded tokens cost; what is priced is the name that is stored with a vector."""

from decimal import Decimal
from typing import Final

from genai_prices import Usage, calc_price

_PROVIDERS: Final = {"openai": "openai", "voyage": "voyageai"}


def embedding_cost_usd(name: str, tokens: int) -> Decimal | None:
    """Return what embedding so many tokens costs with the embedder `name`; None if unknown.

    A model of this process costs nothing; one that somebody runs behind OpenAI's API is unknown.
    Units: USD.
    Source: the data of genai-prices, which ships with the package.
    """
    provider, _, model_and_dimensions = name.partition("/")
    if not model_and_dimensions:
        return Decimal(0)
    model = model_and_dimensions.rpartition("/")[0]
    try:
        price = calc_price(
            Usage(input_tokens=tokens), model_ref=model, provider_id=_PROVIDERS[provider]
        )
    except LookupError:
        return None
    return price.total_price
