"""Owns plans: what their subscribers may use, how often, and for how much."""

from decimal import Decimal
from typing import Annotated

from pydantic import ConfigDict, Field

from schema.wire import RequestModel, Usd

Count = Annotated[int, Field(ge=0, le=1_000_000_000)]


class RateLimits(RequestModel):
    """How often a user may do what."""

    model_config = ConfigDict(strict=False)

    requests_per_minute: Annotated[Count, Field(ge=1)] = 600
    messages_per_minute: Annotated[Count, Field(ge=1)] = 60
    searches_per_minute: Annotated[Count, Field(ge=1)] = 120
    uploads_per_hour: Annotated[Count, Field(ge=1)] = 60
    exports_per_hour: Annotated[Count, Field(ge=1)] = 10


class Entitlements(RequestModel):
    """What a plan allows; null allows all that there is. Units: USD for a period of a month."""

    model_config = ConfigDict(strict=False)

    models: tuple[Annotated[str, Field(min_length=1, max_length=100)], ...] | None = None
    tools: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] | None = None
    rates: RateLimits = RateLimits()
    budget_usd: Annotated[Usd, Field(ge=0, le=Decimal(1_000_000_000))] | None = None
    max_memories: Annotated[Count, Field(le=50_000)] = 10_000
    max_documents: Count = 1_000
    max_document_bytes: Annotated[int, Field(ge=1, le=100 * 1024 * 1024)] = 20 * 1024 * 1024
    max_api_keys: Annotated[Count, Field(le=1_000)] = 20
