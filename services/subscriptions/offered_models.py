"""The models that a user's plan allows, with what is known of each."""

import re
from collections.abc import Sequence
from decimal import Decimal
from functools import cached_property
from typing import Final

from schema.actors import Actor
from schema.models import ModelAbilities, ModelPrices, OfferedModel
from schema.usage import TokenUsage
from services.auth.accounts import AccountCache
from services.database import ActorGoneError
from services.models.abilities import UNKNOWN, Sampling, ThinkingForm, abilities_of
from services.models.context_windows import ContextWindows, provider_and_name
from services.models.pricing import Pricing
from services.subscriptions.plans import allows_model, choose_model

_MILLION: Final = 1_000_000

# The oldest models that are still known. Source: the Messages API's documentation of PDF support.
_WITHOUT_PDF: Final = re.compile(r"claude-3-(opus|sonnet|haiku)")


class OfferedModels:
    """Lists models. Errors: DatabaseUnavailableError."""

    def __init__(
        self,
        accounts: AccountCache,
        pricing: Pricing,
        windows: ContextWindows,
        *,
        models: Sequence[str],
        default_model: str,
        max_output_tokens: int,
    ) -> None:
        self._accounts = accounts
        self._pricing = pricing
        self._windows = windows
        self._models = models
        self._default_model = default_model
        self._max_output_tokens = max_output_tokens

    async def list_models(self, actor: Actor) -> list[OfferedModel]:
        """Return the models that the actor may name in a message, in the order of the settings.

        Errors: ActorGoneError.
        """
        account = await self._accounts.get(actor.user_id)
        if account is None:
            raise ActorGoneError
        preferred = (account.preferred_model, self._default_model)
        chosen = choose_model(account.entitlements, None, models=self._models, preferred=preferred)
        return [
            model.model_copy(update={"is_default": model.id == chosen})
            for model in self._known
            if allows_model(account.entitlements, model.id)
        ]

    @cached_property
    def _known(self) -> list[OfferedModel]:
        """All models: to look one up in the price data takes as long as a read."""
        return [self._described(model) for model in self._models]

    def _described(self, model: str) -> OfferedModel:
        provider, name = provider_and_name(model)
        return OfferedModel(
            id=model,
            name=name,
            provider=provider,
            is_default=False,
            context_window=self._windows.known(model),
            max_output_tokens=min(
                self._max_output_tokens,
                abilities_of(model).max_output_tokens or self._max_output_tokens,
            ),
            prices=prices_of(self._pricing, model),
            abilities=known_abilities(model),
        )


def prices_of(pricing: Pricing, model: str) -> ModelPrices:
    """Return what a million tokens cost where a prompt is short."""

    def price(one: TokenUsage) -> Decimal:
        return pricing.cost(model, one) * _MILLION

    return ModelPrices(
        input=price(TokenUsage(input_tokens=1)),
        output=price(TokenUsage(output_tokens=1)),
        cache_read=price(TokenUsage(cache_read_tokens=1)),
        cache_write=price(TokenUsage(cache_write_tokens=1)),
    )


def known_abilities(model: str) -> ModelAbilities:
    """Return what is known of the abilities of a model."""
    takes = abilities_of(model)
    if takes is UNKNOWN:
        return ModelAbilities()
    return ModelAbilities(
        tools=True,
        images=True,
        pdf=_WITHOUT_PDF.search(model.lower()) is None,
        thinking=takes.thinking is not ThinkingForm.NONE,
        thinking_off=not takes.always_thinks,
        temperature=takes.sampling is not Sampling.NONE,
        structured=takes.structured,
    )
