"""What tokens cost."""

from decimal import Decimal
from typing import Any

import pytest
from genai_prices import Usage, calc_price
from pydantic import ValidationError

from schema.usage import ModelPrice, TokenUsage
from services.models.pricing import Pricing, UnknownPriceError
from services.settings import Settings
from workers.composition.foundation import open_foundation

HAIKU = "claude-haiku-5-5"


def test_an_override_prices_each_kind_of_token() -> None:
    price = ModelPrice(
        input=Decimal(1), output=Decimal(5), cache_read=Decimal("0.1"), cache_write=Decimal("1.25")
    )
    usage = TokenUsage(
        input_tokens=1_000_000,
        output_tokens=100_000,
        cache_read_tokens=10_000_000,
        cache_write_tokens=400_000,
    )

    cost = Pricing({"mine": price}).cost("mine", usage)

    assert cost == Decimal(1) + Decimal("0.5") + Decimal(1) + Decimal("0.5")


def test_cached_tokens_are_not_charged_twice() -> None:
    pricing = Pricing({})
    plain = pricing.cost(HAIKU, TokenUsage(input_tokens=1_000, output_tokens=10))
    cached = pricing.cost(
        HAIKU, TokenUsage(input_tokens=1_000, output_tokens=10, cache_read_tokens=1_000)
    )
    fresh = pricing.cost(HAIKU, TokenUsage(input_tokens=2_000, output_tokens=10))

    assert plain < cached < fresh


def test_prices_are_those_of_genai_prices() -> None:
    expected = calc_price(
        Usage(input_tokens=812, output_tokens=96), model_ref=HAIKU, provider_id="anthropic"
    )

    cost = Pricing({}).cost(HAIKU, TokenUsage(input_tokens=812, output_tokens=96))

    assert cost == expected.total_price
    assert cost > 0


def test_nothing_costs_nothing() -> None:
    assert Pricing({}).cost(HAIKU, TokenUsage()) == 0


def test_a_model_without_a_price_is_named() -> None:
    with pytest.raises(UnknownPriceError, match="claude-of-nobody"):
        Pricing({}).require([HAIKU, "claude-of-nobody"])


@pytest.mark.parametrize(
    "setting",
    ["models", "default_model", "fallback_model", "background_model", "deep_reasoning_model"],
)
async def test_a_process_does_not_start_with_a_model_of_unknown_price(setting: str) -> None:
    unknown: Any = ("claude-of-nobody",) if setting == "models" else "claude-of-nobody"
    settings = Settings(_env_file=None, **{setting: unknown})

    with pytest.raises(UnknownPriceError, match="EVERTURN_MODEL_PRICES"):
        async with open_foundation(settings):
            pass


async def test_a_model_of_unknown_price_starts_with_a_price_from_the_settings() -> None:
    price = ModelPrice(input=Decimal(3), output=Decimal(15))
    settings = Settings(_env_file=None, fallback_model="mine", model_prices={"mine": price})

    async with open_foundation(settings) as foundation:
        assert foundation.pricing.cost("mine", TokenUsage(output_tokens=2_000_000)) == 30


def test_every_model_of_the_default_settings_has_a_price() -> None:
    pricing = Pricing({})
    prices = [
        pricing.cost(model, TokenUsage(input_tokens=1_000_000))
        for model in Settings.model_fields["models"].default
    ]

    assert all(price > 0 for price in prices)


def test_cached_tokens_of_an_overridden_price_are_not_free() -> None:
    pricing = Pricing({"mine": ModelPrice(input=Decimal(3), output=Decimal(15))})

    cost = pricing.cost(
        "mine",
        TokenUsage(input_tokens=10, cache_write_tokens=100_000, cache_read_tokens=400_000),
    )

    assert cost == Decimal("0.49503")


@pytest.mark.parametrize("price", ["-1", "NaN", "Infinity", "three"])
def test_a_price_that_is_no_amount_is_rejected(price: str) -> None:
    with pytest.raises(ValidationError):
        ModelPrice.model_validate({"input": price, "output": "15"})
