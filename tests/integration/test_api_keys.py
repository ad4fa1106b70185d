"""API keys: what they open, and how many and which there can be."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx

from services.auth.credentials import hash_of_key
from tests.fixtures.api_user import ApiUser
from tests.fixtures.stack import Stack

PATH = "/users/me/api-keys"


async def make(user: ApiUser, **body: Any) -> dict[str, Any]:  # noqa: ANN401 -- any JSON
    response = await user.request("POST", PATH, json={"name": "k", **body})
    assert response.status_code == 201, response.text
    data: dict[str, Any] = response.json()["data"]
    return data


def bearer(key: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {key['key']}"}


async def test_a_key_speaks_for_its_owner_within_its_permissions(
    user: ApiUser, http: httpx.AsyncClient
) -> None:
    key = await make(user, permissions=["chats:read", "account:read"])

    me = await http.get("/users/me", headers=bearer(key))
    created = await http.post("/chats", json={"title": "x"}, headers=bearer(key))

    assert me.json()["data"]["id"] == user.id
    assert created.status_code == 403


async def test_a_key_is_stored_as_its_hash(user: ApiUser, stack: Stack) -> None:
    key = await make(user)

    (row,) = await stack.inspection.rows("SELECT * FROM api_keys WHERE user_id = $1", UUID(user.id))
    assert row["key_hash"] == hash_of_key(key["key"])
    assert key["key"] not in str(row)


async def test_the_use_of_a_key_is_noted(user: ApiUser, http: httpx.AsyncClient) -> None:
    key = await make(user)
    assert key["lastUsedAt"] is None

    await http.get("/users/me", headers=bearer(key))

    listed = (await user.request("GET", PATH)).json()["data"]
    assert listed[0]["lastUsedAt"] is not None


async def test_an_api_key_cannot_create_keys_even_if_it_may_change_the_account(
    user: ApiUser, http: httpx.AsyncClient
) -> None:
    key = await make(user, permissions=["account:write", "account:read"])

    response = await http.post(
        PATH, json={"name": "child", "permissions": ["account:read"]}, headers=bearer(key)
    )

    assert response.status_code == 403


async def test_a_revoked_or_expired_key_is_invalid(
    user: ApiUser, http: httpx.AsyncClient, stack: Stack
) -> None:
    soon = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    revoked, old = await make(user), await make(user, expiresAt=soon)
    for key in (revoked, old):
        assert (await http.get("/users/me", headers=bearer(key))).status_code == 200

    await user.request("DELETE", f"{PATH}/{revoked['id']}")
    await stack.inspection.execute(
        "UPDATE api_keys SET expires_at = now() WHERE id = $1", UUID(old["id"])
    )

    for key in (revoked, old):
        assert (await http.get("/users/me", headers=bearer(key))).status_code == 401


async def test_a_revoked_or_expired_key_ends_its_access(user: ApiUser, stack: Stack) -> None:
    kept, revoked, old = await make(user), await make(user), await make(user)
    callers = stack.services.accounts.callers
    let_in = [await callers.authenticate(key["key"]) for key in (kept, revoked, old)]

    await user.request("DELETE", f"{PATH}/{revoked['id']}")
    await stack.inspection.execute(
        "UPDATE api_keys SET expires_at = now() WHERE id = $1", UUID(old["id"])
    )

    still = [caller is not None and await callers.is_signed_in(caller) for caller in let_in]
    assert still == [True, False, False]


async def test_a_key_of_a_demoted_administrator_has_no_admin_rights(
    admin: ApiUser, http: httpx.AsyncClient, stack: Stack
) -> None:
    key = await make(admin, permissions=["admin:read"])
    before = await http.get("/admin/users", headers=bearer(key))

    await stack.inspection.execute("UPDATE users SET role = 'user' WHERE id = $1", UUID(admin.id))

    after = await http.get("/admin/users", headers=bearer(key))
    assert (before.status_code, after.status_code) == (200, 403)


async def test_concurrently_created_keys_stay_within_the_plans_limit(
    user: ApiUser, stack: Stack
) -> None:
    keys = [
        user.request("POST", PATH, json={"name": str(number)}, headers={"Idempotency-Key": key})
        for number, key in enumerate(f"key-{index}" for index in range(24))
    ]

    responses = await asyncio.gather(*keys)

    statuses = [response.status_code for response in responses]
    assert (statuses.count(201), statuses.count(403)) == (20, 4)
    refused = statuses.index(403)
    first = responses[statuses.index(201)].json()["data"]
    await user.request("DELETE", f"{PATH}/{first['id']}")
    body, headers = {"name": str(refused)}, {"Idempotency-Key": f"key-{refused}"}
    again = await user.request("POST", PATH, json=body, headers=headers)
    assert (again.status_code, again.json()["data"]["key"] is None) == (201, False)


async def test_creating_and_revoking_are_in_the_audit_log(user: ApiUser, stack: Stack) -> None:
    key = await make(user, name="secret name")
    await user.request("DELETE", f"{PATH}/{key['id']}")

    rows = await stack.inspection.rows(
        "SELECT * FROM audit_log WHERE resource_id = $1 ORDER BY id", key["id"]
    )
    assert [row["action"] for row in rows] == ["api_key.created", "api_key.revoked"]
    assert "secret name" not in str(rows)
