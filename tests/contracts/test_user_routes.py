"""The routes of the user's own account."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.fixtures.api_user import PASSWORD, ApiUser

USER = {
    *("id", "email", "emailVerified", "pendingEmail", "displayName", "role"),
    *("version", "createdAt", "updatedAt"),
}
PREFERENCES = {
    *("language", "timeZone", "instructions", "defaultModel", "useMemories", "useKnowledge"),
    *("autoAcceptMemories", "extractMemories", "disabledTools", "toolApprovals", "version"),
}
NEW_PASSWORD = "another horse, another battery"


def data_of(response: httpx.Response, status: int = 200) -> Any:  # noqa: ANN401 -- any JSON
    assert response.status_code == status, response.text
    return response.json()["data"]


async def change(member: ApiUser, **body: Any) -> httpx.Response:  # noqa: ANN401 -- any JSON
    return await member.request("PATCH", "/users/me", json=body)


async def test_an_account_is_read_with_its_version(member: ApiUser) -> None:
    response = await member.request("GET", "/users/me")

    assert set(data_of(response)) == USER
    assert data_of(response) == member.session["user"]
    assert response.headers["etag"] == '"1"'


async def test_a_name_is_set_and_removed(member: ApiUser) -> None:
    given = await change(member, displayName="Ada")
    taken = await change(member, displayName=None)

    assert (data_of(given)["displayName"], given.headers["etag"]) == ("Ada", '"2"')
    assert (data_of(taken)["displayName"], taken.headers["etag"]) == (None, '"3"')


async def test_an_update_of_another_version_is_rejected(member: ApiUser) -> None:
    await change(member, displayName="Ada")

    response = await member.request(
        "PATCH", "/users/me", json={"displayName": "B"}, headers={"If-Match": '"1"'}
    )

    assert response.status_code == 412
    assert response.json()["error"]["code"] == "PRECONDITION_FAILED"


@pytest.mark.parametrize(
    "field", [{"email": "new@example.com"}, {"newPassword": NEW_PASSWORD}], ids=str
)
async def test_credentials_change_only_with_the_current_password(
    member: ApiUser, field: dict[str, str]
) -> None:
    without = await change(member, **field)
    wrong = await change(member, **field, currentPassword="wrong one")

    assert without.status_code == 400
    assert without.json()["error"]["details"][0]["path"] == "body.currentPassword"
    assert wrong.status_code == 403
    assert data_of(await member.request("GET", "/users/me"))["version"] == 1


async def test_a_new_email_signs_in_and_the_old_one_becomes_available(
    recorded: httpx.AsyncClient, member: ApiUser
) -> None:
    address = f"New-{uuid4().hex}@Example.com"

    changed = data_of(await change(member, email=address, currentPassword=PASSWORD))

    assert changed["email"] == address.lower()
    for email, status in ((address, 200), (member.email, 401)):
        body = {"email": email, "password": PASSWORD}
        assert (await recorded.post("/auth/login", json=body)).status_code == status


async def test_an_email_of_another_account_is_taken(member: ApiUser, other_user: ApiUser) -> None:
    response = await change(member, email=other_user.email.upper(), currentPassword=PASSWORD)

    assert response.status_code == 409
    assert response.json()["error"]["code"] == "CONFLICT"
    assert data_of(await member.request("GET", "/users/me"))["email"] == member.email


async def test_a_new_password_ends_other_sign_ins_and_not_this_one(
    recorded: httpx.AsyncClient, member: ApiUser
) -> None:
    body = {"email": member.email, "password": PASSWORD}
    other = data_of(await recorded.post("/auth/login", json=body))

    changed = await change(member, newPassword=NEW_PASSWORD, currentPassword=PASSWORD)

    assert changed.status_code == 200
    statuses = [
        (await recorded.post("/auth/refresh", json={"refreshToken": token})).status_code
        for token in (other["refreshToken"], member.session["refreshToken"])
    ]
    assert statuses == [401, 200]
    assert (await recorded.post("/auth/login", json=body)).status_code == 401
    renewed = {"email": member.email, "password": NEW_PASSWORD}
    assert (await recorded.post("/auth/login", json=renewed)).status_code == 200


async def test_one_of_two_concurrent_password_changes_succeeds(member: ApiUser) -> None:
    responses = await asyncio.gather(
        *(
            change(member, newPassword=f"password number {number}", currentPassword=PASSWORD)
            for number in range(2)
        )
    )

    assert sorted(response.status_code for response in responses) == [200, 403]


async def test_preferences_are_those_by_default_until_some_are_stored(member: ApiUser) -> None:
    response = await member.request("GET", "/users/me/preferences")

    assert set(data_of(response)) == PREFERENCES
    assert response.headers["etag"] == '"1"'
    assert data_of(response)["useMemories"] is True
    assert data_of(response)["disabledTools"] == []


async def test_preferences_are_replaced_as_a_whole(member: ApiUser) -> None:
    path = "/users/me/preferences"
    body = {
        "language": "pt-BR",
        "timeZone": "America/Sao_Paulo",
        "instructions": "Be brief.",
        "defaultModel": "claude-sonnet-5-5",
        "useMemories": False,
        "disabledTools": ["web_search"],
    }

    first = await member.request("PUT", path, json=body, headers={"If-Match": '"1"'})
    again = await member.request("PUT", path, json={"language": "en"})
    stale = await member.request("PUT", path, json=body, headers={"If-Match": '"2"'})

    assert {name: data_of(first)[name] for name in body} == body
    assert first.headers["etag"] == '"2"'
    assert (data_of(again)["instructions"], data_of(again)["useMemories"]) == (None, True)
    assert stale.status_code == 412
    assert data_of(await member.request("GET", path)) == data_of(again)


async def test_an_unknown_model_is_rejected_as_a_preference(member: ApiUser) -> None:
    body = {"defaultModel": "claude-of-tomorrow"}

    response = await member.request("PUT", "/users/me/preferences", json=body)

    assert response.status_code == 400
    assert response.json()["error"]["details"][0]["path"] == "body.defaultModel"


async def test_an_export_is_a_document_to_be_saved(member: ApiUser) -> None:
    chat = await member.create_chat("Rome")

    response = await member.request("GET", "/users/me/export")

    body = json.loads(response.content)
    assert response.status_code == 200
    assert response.headers["content-disposition"].startswith("attachment;")
    assert body["meta"] == {"requestId": response.headers["x-request-id"]}
    assert body["data"]["profile"]["email"] == member.email
    assert [(row["id"], row["title"]) for row in body["data"]["chats"]] == [(chat, "Rome")]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (None, 400, "VALIDATION_ERROR"),
        ({}, 400, "VALIDATION_ERROR"),
        ({"currentPassword": None}, 400, "VALIDATION_ERROR"),
        ({"currentPassword": "not this one"}, 403, "FORBIDDEN"),
        ({"password": PASSWORD}, 400, "VALIDATION_ERROR"),
    ],
)
async def test_an_account_is_not_deleted_without_its_password(
    member: ApiUser, body: dict[str, Any] | None, status: int, code: str
) -> None:
    refused = await member.request("DELETE", "/users/me", json=body)

    assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)
    assert (await member.request("GET", "/users/me")).status_code == 200


async def test_an_account_is_deleted(member: ApiUser) -> None:
    deleted = await member.request("DELETE", "/users/me", json={"currentPassword": PASSWORD})
    gone = await member.request("GET", "/users/me")

    assert (deleted.status_code, deleted.content, gone.status_code) == (204, b"", 401)
