"""The routes of all users' accounts, for administrators."""

from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from tests.fixtures.api_user import PASSWORD, ApiUser
from tests.fixtures.database import Inspection

MANAGED = {
    *("id", "email", "emailVerified", "pendingEmail", "displayName", "role", "status", "planId"),
    *("version", "createdAt", "updatedAt"),
}
PATH = "/admin/users"


@pytest.fixture
async def manager(recorded: httpx.AsyncClient, admin: ApiUser) -> ApiUser:
    """An administrator who speaks through the recording client."""
    return ApiUser(recorded, admin.session, email=admin.email)


async def listed(manager: ApiUser, **params: str | int) -> list[dict[str, Any]]:
    response = await manager.request("GET", PATH, params=params)
    assert response.status_code == 200, response.text
    data: list[dict[str, Any]] = response.json()["data"]
    return data


async def test_users_are_listed_newest_first(manager: ApiUser, member: ApiUser) -> None:
    users = await listed(manager, limit=1)

    assert set(users[0]) == MANAGED
    assert users[0]["id"] == member.id


async def test_a_user_is_found_by_parts_of_their_address_or_name(
    manager: ApiUser, member: ApiUser
) -> None:
    name = f"Zoë 100%_{uuid4().hex}"
    await member.request("PATCH", "/users/me", json={"displayName": name})

    for words in (member.email[3:20].upper(), name[4:], "%_" + name[-32:]):
        assert [user["id"] for user in await listed(manager, search=words)] == [member.id]
    assert await listed(manager, search="%" + member.email) == []


async def test_users_are_filtered_by_role_status_and_plan(
    manager: ApiUser, member: ApiUser, inspection: Inspection
) -> None:
    search = member.email
    plan = (await listed(manager, search=search))[0]["planId"]
    default = str(await inspection.value("SELECT id FROM plans WHERE is_default"))

    assert plan == default
    for params, found in (
        ({"role": "user", "status": "active", "planId": plan}, True),
        ({"role": "admin"}, False),
        ({"status": "disabled"}, False),
        ({"planId": str(uuid4())}, False),
    ):
        assert bool(await listed(manager, search=search, **params)) is found, params


@pytest.mark.parametrize("sort", ["createdAt", "-createdAt", "email", "-email"])
async def test_users_come_in_pages_in_every_order(
    manager: ApiUser, member: ApiUser, inspection: Inspection, sort: str
) -> None:
    domain = f"{uuid4().hex}.example"
    rows = []
    for local in ("b", "a", "c", None):
        email = None if local is None else f"{local}@{domain}"
        user_id = uuid4()
        rows.append(str(user_id))
        await inspection.execute(
            "INSERT INTO users (id, email, display_name) VALUES ($1, $2, $3)",
            user_id,
            email,
            domain,
        )
    seen: list[dict[str, Any]] = []
    cursor = None
    while True:
        params = {"limit": 1, "sort": sort, "search": domain}
        page = (
            await manager.request(
                "GET", PATH, params=params | ({} if cursor is None else {"cursor": cursor})
            )
        ).json()
        seen += page["data"]
        cursor = page["meta"]["nextCursor"]
        if cursor is None:
            break

    assert sorted(user["id"] for user in seen) == sorted(rows)
    field = sort.strip("-").replace("createdAt", "id")
    places = [user[field] or "" for user in seen]
    assert places == sorted(places, reverse=sort.startswith("-"))


async def test_a_user_is_read_by_id_and_an_unknown_one_is_not_found(
    manager: ApiUser, member: ApiUser
) -> None:
    found = await manager.request("GET", f"{PATH}/{member.id}")
    missing = await manager.request("GET", f"{PATH}/{uuid4()}")

    assert set(found.json()["data"]) == MANAGED
    assert found.headers["etag"] == '"1"'
    assert missing.status_code == 404


async def test_a_disabled_user_is_signed_out_at_once_and_enabling_restores_no_session(
    manager: ApiUser, member: ApiUser, recorded: httpx.AsyncClient
) -> None:
    path, token = f"{PATH}/{member.id}", {"refreshToken": member.session["refreshToken"]}

    disabled = await manager.request("PATCH", path, json={"status": "disabled"})
    out = await member.request("GET", "/users/me")
    await manager.request("PATCH", path, json={"status": "active"})

    assert disabled.json()["data"]["status"] == "disabled"
    assert out.status_code == 401
    assert (await recorded.post("/auth/refresh", json=token)).status_code == 401
    body = {"email": member.email, "password": PASSWORD}
    assert (await recorded.post("/auth/login", json=body)).status_code == 200


async def test_a_role_applies_from_the_next_request(manager: ApiUser, member: ApiUser) -> None:
    path = f"{PATH}/{member.id}"

    before = await member.request("GET", PATH)
    await manager.request("PATCH", path, json={"role": "admin"}, headers={"If-Match": '"1"'})
    during = await member.request("GET", PATH)
    stale = await manager.request("PATCH", path, json={"role": "user"}, headers={"If-Match": '"1"'})
    await manager.request("PATCH", path, json={"role": "user"})
    after = await member.request("GET", PATH)

    statuses = [response.status_code for response in (before, during, stale, after)]
    assert statuses == [403, 200, 412, 403]


async def test_administrators_changes_are_in_the_audit_log_without_the_text(
    manager: ApiUser, member: ApiUser, inspection: Inspection
) -> None:
    body = {"displayName": "Renamed", "status": "active"}
    await manager.request("PATCH", f"{PATH}/{member.id}", json=body)

    rows = await inspection.rows(
        "SELECT * FROM audit_log WHERE action = 'user.changed' AND subject_id = $1",
        UUID(member.id),
    )
    assert [str(row["actor_id"]) for row in rows] == [manager.id]
    assert rows[0]["details"] == '{"changed": ["displayName", "status"]}'


async def test_an_unknown_user_cannot_be_changed(manager: ApiUser) -> None:
    response = await manager.request("PATCH", f"{PATH}/{uuid4()}", json={"role": "user"})

    assert response.status_code == 404


@pytest.mark.parametrize(
    "params", [{"role": "king"}, {"status": "x"}, {"planId": "x"}, {"sort": "name"}, {"search": ""}]
)
async def test_an_invalid_filter_is_rejected(manager: ApiUser, params: dict[str, str]) -> None:
    response = await manager.request("GET", PATH, params=params)

    assert response.status_code == 400
    assert response.json()["error"]["details"][0]["path"] == f"query.{next(iter(params))}"
