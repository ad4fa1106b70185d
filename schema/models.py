"""The models that a caller may choose."""

from pydantic import Field

from schema.wire import Usd, WireModel


class ModelPrices(WireModel):
    """Units: USD per million tokens; of a model with several, those of a short prompt."""

    input: Usd
    output: Usd
    cache_read: Usd
    cache_write: Usd


class ModelAbilities(WireModel):
    """What a model takes and does; null where it is unknown."""

    tools: bool | None = None
    images: bool | None = None
    pdf: bool | None = None
    thinking: bool | None = None
    structured: bool | None = Field(None, description="Answers that fit a JSON schema.")
    thinking_off: bool | None = Field(
        default=None, description="Whether thinking can be turned off."
    )
    temperature: bool | None = Field(
        default=None, description="Whether it takes `temperature`, or `topP` in its place."
    )


class OfferedModel(WireModel):
    """A model that the caller's plan allows; null where something is unknown.

    Units: `contextWindow` and `maxOutputTokens` are in tokens.
    """

    id: str
    name: str | None
    provider: str | None
    is_default: bool = Field(description="Whether it answers messages that name no model.")
    context_window: int | None = Field(description="For the prompt and the answer together.")
    max_output_tokens: int = Field(description="The most that this server asks for.")
    prices: ModelPrices
    abilities: ModelAbilities
