"""Budgets: limits of spending, in money and in tokens, for a day and for a month."""

from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, Field

from schema.wire import RequestModel, Usd

# JSON has no decimals: they are parsed from strings and numbers.
_Money = Annotated[
    Usd,
    Field(
        strict=False,
        ge=0,
        le=Decimal(1_000_000_000),
        max_digits=20,
        decimal_places=10,
        examples=["25.00"],
    ),
    # "-0" is zero, too, and is not shown back with its sign.
    AfterValidator(abs),
]
# Within what every JSON parser reads exactly.
_Tokens = Annotated[int, Field(ge=0, le=10**15, examples=[5_000_000])]


class BudgetLimits(RequestModel):
    """Limits of spending; null means no limit, and zero that nothing may be spent.

    Units: USD, and tokens of all kinds: input, output, cache reads and cache writes.
    """

    budget_usd: Annotated[_Money | None, Field(description="The budget of a month, in USD.")] = None
    daily_budget_usd: Annotated[
        _Money | None, Field(description="The budget of a day in UTC, in USD.")
    ] = None
    budget_tokens: Annotated[
        _Tokens | None,
        Field(description="The budget of a month, in tokens of all kinds, cached ones included."),
    ] = None
    daily_budget_tokens: Annotated[
        _Tokens | None,
        Field(
            description="The budget of a day in UTC, in tokens of all kinds, cached ones included."
        ),
    ] = None
