"""External identities: each has one account, and never another user's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest
from starlette.responses import Response

from api.app import create_app
from services.auth.issuers import ExternalIssuer
from tests.fakes.identity_provider import KEY_SET, IdentityProvider, identity_provider
from tests.fixtures.api_user import ApiUser
from tests.fixtures.serving import serving
from tests.fixtures.stack import Stack, api_client
from workers.composition.api import open_api_services


@pytest.fixture(scope="module")
async def provider() -> AsyncIterator[IdentityProvider]:
    async with identity_provider() as served:
        yield served


@asynccontextmanager
async def trusting(stack: Stack, provider: IdentityProvider) -> AsyncIterator[httpx.AsyncClient]:
    """Serve an API that takes the provider's tokens."""
    issuer = ExternalIssuer.model_validate(
        {"issuer": provider.origin, "audience": "everturn-api", "algorithms": ["ES256"]}
    )
    settings = stack.settings.model_copy(update={"issuers": (issuer,)})
    foundation = stack.foundation.__class__(
        **{
            name: getattr(stack.foundation, name)
            for name in stack.foundation.__dataclass_fields__
            if name != "settings"
        },
        settings=settings,
    )
    async with (
        open_api_services(foundation, stack.temporal, eager=False) as services,
        serving(create_app(services, max_body_bytes=settings.max_body_bytes)) as origin,
        api_client(origin) as client,
    ):
        yield client


@pytest.fixture(scope="module")
async def outside(stack: Stack, provider: IdentityProvider) -> AsyncIterator[httpx.AsyncClient]:
    async with trusting(stack, provider) as client:
        yield client


def bearer(provider: IdentityProvider, subject: str, **claims: object) -> dict[str, str]:
    """Return the headers of a subject, without an email unless one is given."""
    token = provider.token(**{"sub": subject, "email": None, **claims})
    return {"Authorization": f"Bearer {token}"}


async def me(client: httpx.AsyncClient, headers: dict[str, str]) -> dict[str, Any]:
    response = await client.get("/users/me", headers=headers)
    assert response.status_code == 200, response.text
    data: dict[str, Any] = response.json()["data"]
    return data


async def test_the_first_token_of_an_identity_creates_its_account(
    outside: httpx.AsyncClient, provider: IdentityProvider
) -> None:
    subject, email = uuid4().hex, f"{uuid4().hex}@Example.com"

    first = await me(outside, bearer(provider, subject, email=email))
    again = await me(outside, bearer(provider, subject, email=email))

    assert first["email"] == email.lower()
    assert (first["displayName"], first["role"]) == ("Ada Lovelace", "user")
    assert again == first


async def test_an_identity_without_a_verified_email_has_an_account_without_one(
    outside: httpx.AsyncClient, provider: IdentityProvider
) -> None:
    headers = bearer(provider, uuid4().hex, email="ada@example.com", email_verified=False)

    assert (await me(outside, headers))["email"] is None


async def test_many_concurrent_first_requests_create_one_account(
    outside: httpx.AsyncClient, provider: IdentityProvider, stack: Stack
) -> None:
    subject = uuid4().hex
    headers = bearer(provider, subject)

    people = await asyncio.gather(*(me(outside, headers) for _ in range(8)))

    assert len({person["id"] for person in people}) == 1
    count = "SELECT count(*) FROM identities WHERE subject = $1"
    assert await stack.inspection.value(count, subject) == 1


async def test_an_address_of_another_account_does_not_open_it(
    outside: httpx.AsyncClient, provider: IdentityProvider, user: ApiUser, stack: Stack
) -> None:
    subject = uuid4().hex

    response = await outside.get("/users/me", headers=bearer(provider, subject, email=user.email))

    assert response.status_code == 409
    assert response.json()["error"]["code"] == "CONFLICT"
    count = "SELECT count(*) FROM identities WHERE subject = $1"
    assert await stack.inspection.value(count, subject) == 0


async def test_a_role_in_a_token_is_ignored(
    outside: httpx.AsyncClient, provider: IdentityProvider
) -> None:
    headers = bearer(provider, uuid4().hex, role="admin", roles=["admin"], scope="admin:read")

    assert (await me(outside, headers))["role"] == "user"
    assert (await outside.get("/admin/users", headers=headers)).status_code == 403


async def test_a_token_that_outlives_its_account_does_not_create_another(
    outside: httpx.AsyncClient, provider: IdentityProvider, stack: Stack
) -> None:
    subject = uuid4().hex
    headers = bearer(provider, subject)
    await me(outside, headers)

    deleted = await outside.delete("/users/me", headers=headers)
    again = await outside.get("/users/me", headers=headers)
    await stack.inspection.execute(
        "UPDATE closed_identities SET closed_at = closed_at - interval '25 hours'"
    )
    later = await outside.get("/users/me", headers=headers)

    assert [deleted.status_code, again.status_code, later.status_code] == [204, 401, 200]


async def test_a_disabled_account_is_not_opened_by_its_issuer(
    outside: httpx.AsyncClient, provider: IdentityProvider, admin: ApiUser
) -> None:
    headers = bearer(provider, uuid4().hex)
    person = await me(outside, headers)

    await admin.request("PATCH", f"/admin/users/{person['id']}", json={"status": "disabled"})

    assert (await outside.get("/users/me", headers=headers)).status_code == 401


async def test_an_account_without_a_password_cannot_set_one(
    outside: httpx.AsyncClient, provider: IdentityProvider
) -> None:
    body = {"newPassword": "long enough", "currentPassword": "whatever"}

    response = await outside.patch("/users/me", headers=bearer(provider, uuid4().hex), json=body)

    assert response.status_code == 409


async def test_an_unavailable_issuer_asks_its_users_to_try_again(
    stack: Stack,
) -> None:
    async with identity_provider() as away, trusting(stack, away) as client:
        away.answers[KEY_SET] = Response(status_code=500)

        response = await client.get("/users/me", headers=bearer(away, uuid4().hex))

        assert response.status_code == 503
        assert response.json()["error"]["code"] == "SERVICE_UNAVAILABLE"
        assert int(response.headers["retry-after"]) > 0


async def test_a_token_of_another_issuer_is_invalid(
    stack: Stack, provider: IdentityProvider
) -> None:
    response = await stack.http.get("/users/me", headers=bearer(provider, uuid4().hex))

    assert response.status_code == 401
