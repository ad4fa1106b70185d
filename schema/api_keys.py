"""Owns API keys as their owners see them."""

from typing import Annotated

from pydantic import Field

from schema.ids import ApiKeyId
from schema.permissions import Permission
from schema.wire import Moment, RequestModel, Timestamp, VisibleText, WireModel


class ApiKey(WireModel):
    """A key for programs, without the key: it is told once, when it is made."""

    id: ApiKeyId
    name: str
    start: str = Field(description="The first characters of the key, to know it by.")
    permissions: tuple[Permission, ...]
    created_at: Timestamp
    expires_at: Timestamp | None
    last_used_at: Timestamp | None


class CreatedApiKey(ApiKey):
    """A key that was made by this request, or by the same request before."""

    key: str | None = Field(
        description="The key. It is stored nowhere and told this once: null where the request "
        "was made before under the same idempotency key."
    )


class CreateApiKeyRequest(RequestModel):
    """A new key. It may do what it is given, or all but administration and account changes."""

    name: Annotated[VisibleText, Field(min_length=1, max_length=100, examples=["Nightly import"])]
    permissions: (
        Annotated[
            list[Annotated[Permission, Field(strict=False)]], Field(min_length=1, max_length=50)
        ]
        | None
    ) = None
    expires_at: Moment | None = None
