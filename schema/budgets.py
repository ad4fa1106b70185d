"""Budgets: limits of spending, in money and in tokens, for a day and for a month."""

from datetime import UTC
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from schema.errors import NO_BUDGET_LEFT
from schema.ids import UserId
from schema.wire import RequestModel, Timestamp, Usd, VersionedModel, WireModel

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


class BudgetScope(StrEnum):
    """Whose budget it is."""

    USER = "user"
    API_KEY = "api_key"
    INSTALLATION = "installation"


class BudgetUnit(StrEnum):
    """What a budget counts."""

    USD = "usd"
    TOKENS = "tokens"


class BudgetWindow(StrEnum):
    """How long a budget lasts, in UTC.

    A month is a period of the subscription; the installation's is one of the calendar.
    """

    DAY = "day"
    MONTH = "month"


_OWNERS: Final = {
    BudgetScope.USER: "You have",
    BudgetScope.API_KEY: "This API key has",
    BudgetScope.INSTALLATION: "This server has",
}
_KINDS: Final = {
    (BudgetWindow.DAY, BudgetUnit.USD): "daily budget",
    (BudgetWindow.DAY, BudgetUnit.TOKENS): "daily token budget",
    (BudgetWindow.MONTH, BudgetUnit.USD): "monthly budget",
    (BudgetWindow.MONTH, BudgetUnit.TOKENS): "monthly token budget",
}


class BudgetExceeded(WireModel):
    """The budget that has nothing left, or not enough, and when it resets."""

    scope: BudgetScope
    unit: BudgetUnit
    window: BudgetWindow
    resets_at: Timestamp

    @property
    def message(self) -> str:
        """The sentence for a person."""
        resets_at = self.resets_at.astimezone(UTC)
        return NO_BUDGET_LEFT.format(
            _OWNERS[self.scope], _KINDS[self.window, self.unit], f"{resets_at:%Y-%m-%d %H:%M} UTC"
        )


class MoneyUse(WireModel):
    """A budget of money: `used` by finished calls, and `reserved` for running ones.

    `limit` and `left` are null without a limit.
    """

    limit: Usd | None
    used: Usd
    reserved: Usd
    left: Usd | None


class TokenUse(WireModel):
    """A budget of tokens: `used` by finished calls, and `reserved` for running ones.

    `limit` and `left` are null without a limit.
    """

    limit: int | None
    used: int
    reserved: int
    left: int | None


class WindowUse(WireModel):
    """What was spent in a day or month, and when the next begins."""

    starts_at: Timestamp
    resets_at: Timestamp
    usd: MoneyUse
    tokens: TokenUse


class BudgetUse(WireModel):
    """What was spent in the current day and month, against the limits."""

    day: WindowUse
    month: WindowUse


class LimitsInEffect(WireModel):
    """Limits of spending; null means no limit."""

    budget_usd: Usd | None
    daily_budget_usd: Usd | None
    budget_tokens: int | None
    daily_budget_tokens: int | None


class ApiKeyBudget(LimitsInEffect, BudgetUse):
    """The limits of an API key, which apply beside its user's, and what it has spent."""


class LimitsSource(StrEnum):
    """Where a user's limits come from."""

    PLAN = "plan"
    USER = "user"


class UserBudget(LimitsInEffect, BudgetUse, VersionedModel):
    """The limits that apply to a user, and what they have spent.

    With `source: "user"` they replace all four of the plan's. `version` is 0 for the plan's.
    """

    user_id: UserId
    source: LimitsSource
    updated_at: Timestamp | None


class InstallationBudget(LimitsInEffect, BudgetUse, VersionedModel):
    """The limits that apply to all users together, and what they have spent.

    `version` is 0 while none are set.
    """

    updated_at: Timestamp | None
