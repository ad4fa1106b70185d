"""The routes of a user's own API keys."""

from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.fixtures.api_user import ApiUser

KEY = {"id", "name", "start", "permissions", "createdAt", "expiresAt", "lastUsedAt", "budget"}
PATH = "/users/me/api-keys"


async def make(member: ApiUser, *, key: str | None = None, **body: Any) -> httpx.Response:  # noqa: ANN401 -- any JSON
    headers = {} if key is None else {"Idempotency-Key": key}
    return await member.request("POST", PATH, json={"name": "Import", **body}, headers=headers)


async def new_key(member: ApiUser, **body: Any) -> dict[str, Any]:  # noqa: ANN401 -- as above
    response = await make(member, **body)
    assert response.status_code == 201, response.text
    data: dict[str, Any] = response.json()["data"]
    return data


async def listed(member: ApiUser) -> list[dict[str, Any]]:
    data: list[dict[str, Any]] = (await member.request("GET", PATH)).json()["data"]
    return data


async def test_a_key_is_shown_once_and_listed_by_its_prefix(member: ApiUser) -> None:
    key = await new_key(member)

    secret = key.pop("key")
    assert set(key) == KEY
    assert secret.startswith(key["start"])
    assert secret.startswith("evk_")
    assert len(secret) == len("evk_") + 43
    assert await listed(member) == [key]
    assert secret not in (await member.request("GET", PATH)).text


async def test_a_key_is_read_from_its_location(member: ApiUser) -> None:
    response = await make(member)
    key = response.json()["data"]
    path = response.headers["Location"].removeprefix("/api/v1")

    read = await member.request("GET", path)
    await member.request("DELETE", path)

    assert read.json()["data"] == {name: key[name] for name in KEY}
    assert (await member.request("GET", path)).status_code == 404


async def test_a_key_may_do_all_but_administration_and_account_changes(member: ApiUser) -> None:
    permissions = (await new_key(member))["permissions"]

    assert "chats:write" in permissions
    assert not {"account:write", "admin:read", "admin:write"} & set(permissions)


async def test_a_revoked_key_is_no_longer_listed(member: ApiUser) -> None:
    key = await new_key(member)

    first = await member.request("DELETE", f"{PATH}/{key['id']}")
    again = await member.request("DELETE", f"{PATH}/{key['id']}")

    assert (first.status_code, first.content) == (204, b"")
    assert again.status_code == 404
    assert await listed(member) == []


async def test_a_key_of_another_user_is_forbidden_and_an_unknown_one_is_not_found(
    member: ApiUser, other_user: ApiUser
) -> None:
    key = await new_key(other_user)

    theirs = await member.request("DELETE", f"{PATH}/{key['id']}")
    missing = await member.request("DELETE", f"{PATH}/{uuid4()}")

    assert (theirs.status_code, missing.status_code) == (403, 404)
    assert len(await listed(other_user)) == 1


async def test_a_repeated_request_returns_the_record_without_the_key(member: ApiUser) -> None:
    idempotency_key = uuid4().hex

    first = (await make(member, key=idempotency_key)).json()["data"]
    again = await make(member, key=idempotency_key)
    other = await make(member, key=idempotency_key, name="Other")

    assert again.status_code == 201
    assert again.json()["data"] == {**first, "key": None}
    assert other.status_code == 409
    assert other.json()["error"]["code"] == "IDEMPOTENCY_CONFLICT"
    assert len(await listed(member)) == 1


async def test_a_repeated_request_reports_that_its_key_is_revoked(member: ApiUser) -> None:
    idempotency_key = uuid4().hex
    key = (await make(member, key=idempotency_key)).json()["data"]
    await member.request("DELETE", f"{PATH}/{key['id']}")

    again = await make(member, key=idempotency_key)

    assert again.status_code == 409
    assert again.json()["error"]["code"] == "IDEMPOTENCY_CONFLICT"
    assert await listed(member) == []


async def test_keys_are_paginated(member: ApiUser) -> None:
    keys = [(await new_key(member))["id"] for _ in range(3)]

    first = (await member.request("GET", PATH, params={"limit": 2})).json()
    params = {"limit": 2, "cursor": first["meta"]["nextCursor"]}
    second = (await member.request("GET", PATH, params=params)).json()

    assert [key["id"] for key in first["data"] + second["data"]] == keys[::-1]
    assert second["meta"]["nextCursor"] is None


@pytest.mark.parametrize(
    "moment",
    [
        "2020-01-01T00:00:00Z",
        "9999-12-31T23:59:59-23:59",
        "0001-01-01T00:00:00+23:59",
        "2199-01-01T00:00:00Z",
    ],
)
async def test_an_expiry_in_the_past_or_far_future_is_rejected(
    member: ApiUser, moment: str
) -> None:
    response = await make(member, expiresAt=moment)

    assert response.status_code == 400
    assert response.json()["error"]["details"][0]["path"] == "body.expiresAt"


async def test_a_key_cannot_do_more_than_its_creator(member: ApiUser) -> None:
    response = await make(member, permissions=["admin:read"])

    assert response.status_code == 403
