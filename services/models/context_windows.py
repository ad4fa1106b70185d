"""How many tokens each model takes: prompt and answer together."""

from collections.abc import Mapping
from typing import Final

from genai_prices.data_snapshot import get_snapshot

UNKNOWN_WINDOW: Final = 200_000
"""Of a model that neither the settings nor the price data know."""

_MARGIN: Final = 20
"""A twentieth of the window is left free: the prompt's size is an estimate."""


class ContextWindows:
    """The context windows of models.

    Source: the data of genai-prices, which ships with the package.
    """

    def __init__(self, overrides: Mapping[str, int], *, max_output_tokens: int) -> None:
        self._overrides = dict(overrides)
        self._max_output_tokens = max_output_tokens

    def window(self, model: str) -> int:
        """Return the size of the model's context window."""
        return self.known(model) or UNKNOWN_WINDOW

    def known(self, model: str) -> int | None:
        """Return the size of the model's context window, or None if it is unknown."""
        if model in self._overrides:
            return self._overrides[model]
        try:
            _, found = get_snapshot().find_provider_model(model, None, "anthropic", None)
        except LookupError:
            return None
        return found.context_window

    def takes(self, model: str) -> int:
        """Return how many tokens of a prompt the model takes beside its answer."""
        window = self.window(model)
        return max(window - self._max_output_tokens, window // 2)

    def room_for_answer(self, model: str, *, prompt_tokens: int) -> int:
        """Return how many tokens the window leaves for an answer; never less than a usual one."""
        return max(self.window(model) - prompt_tokens, self._max_output_tokens)

    def prompt_limit(self, model: str) -> int:
        """Return how many tokens a prompt may have by an estimate."""
        return self.takes(model) - self.window(model) // _MARGIN


def provider_and_name(model: str) -> tuple[str | None, str | None]:
    """Return a model's provider, and its name for people, where they are known."""
    try:
        provider, found = get_snapshot().find_provider_model(model, None, "anthropic", None)
    except LookupError:
        return None, None
    return provider.id, found.name
