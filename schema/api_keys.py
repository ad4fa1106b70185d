"""API keys as their owners see them."""

from collections.abc import Iterable
from typing import Annotated

from pydantic import BeforeValidator, Field

from schema.budgets import ApiKeyBudget, BudgetLimits
from schema.ids import ApiKeyId
from schema.permissions import Permission
from schema.wire import Moment, RequestModel, Timestamp, VisibleText, WireModel


def _known_permissions(names: Iterable[str]) -> tuple[Permission, ...]:
    """Return the permissions with these names, without those that no longer exist."""
    stored = frozenset(names)
    return tuple(permission for permission in Permission if permission.value in stored)


class ApiKey(WireModel):
    """An API key without its secret, which is returned once, when the key is created."""

    id: ApiKeyId
    name: str
    start: str = Field(description="The first characters of the key, to recognize it by.")
    permissions: Annotated[tuple[Permission, ...], BeforeValidator(_known_permissions)]
    created_at: Timestamp
    expires_at: Timestamp | None
    last_used_at: Timestamp | None
    budget: ApiKeyBudget | None


class CreatedApiKey(ApiKey):
    """A key created by this request, or by an earlier one with the same idempotency key."""

    key: str | None = Field(
        description="The key. It is not stored and returned only once: null when the request is "
        "a retry with the same idempotency key."
    )


class CreateApiKeyRequest(RequestModel):
    """A new key; by default it may do everything but administration and account changes."""

    name: Annotated[VisibleText, Field(min_length=1, max_length=100, examples=["Nightly import"])]
    permissions: (
        Annotated[
            list[Annotated[Permission, Field(strict=False)]], Field(min_length=1, max_length=50)
        ]
        | None
    ) = None
    expires_at: Moment | None = None
    budget: Annotated[
        BudgetLimits | None,
        Field(
            description="Limits of what the key may spend, beside those of its user. They can't be "
            "changed; create another key instead."
        ),
    ] = None
