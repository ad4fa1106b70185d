"""What is known of models: nothing is invented about the others."""

from decimal import Decimal

import pytest

from schema.models import ModelAbilities
from schema.usage import ModelPrice
from services.models.context_windows import ContextWindows, provider_and_name
from services.models.pricing import Pricing
from services.subscriptions.offered_models import known_abilities, prices_of

UNKNOWN = ModelAbilities()
OLD = ModelAbilities(
    tools=True,
    images=True,
    pdf=True,
    thinking=True,
    thinking_off=True,
    temperature=True,
    structured=False,
)
NEW = OLD.model_copy(update={"temperature": False, "structured": True})


@pytest.mark.parametrize(
    ("model", "abilities"),
    [
        ("claude-haiku-5-5", NEW),
        ("claude-opus-5-5", NEW.model_copy(update={"thinking_off": False})),
        ("claude-opus-4-1-20250805", OLD),
        ("claude-3-7-sonnet-20250219", OLD),
        ("claude-3-haiku-20240307", OLD.model_copy(update={"pdf": False, "thinking": False})),
        ("my-claude", UNKNOWN),
        ("llama-4", UNKNOWN),
    ],
)
def test_abilities_are_those_of_the_family(model: str, abilities: ModelAbilities) -> None:
    assert known_abilities(model) == abilities


def test_an_unknown_model_has_no_window_provider_or_name() -> None:
    windows = ContextWindows({"mine": 8_192}, max_output_tokens=4_096)

    assert (windows.known("mine"), windows.known("other")) == (8_192, None)
    assert provider_and_name("other") == (None, None)


def test_prices_are_those_of_the_settings() -> None:
    pricing = Pricing({"mine": ModelPrice(input=Decimal(3), output=Decimal(15))})

    prices = prices_of(pricing, "mine")

    assert (prices.input, prices.output) == (Decimal(3), Decimal(15))
    assert (prices.cache_read, prices.cache_write) == (Decimal("0.3"), Decimal("3.75"))
