"""MCP servers over HTTP: registered, changed, refreshed and deleted by administrators."""

import asyncio
import sys
import uuid
from typing import Any

import httpx
import pytest

from tests.fakes.mcp_server import PROGRAMS
from tests.fixtures.api_user import ApiUser
from tests.fixtures.stack import Stack

pytestmark = pytest.mark.usefixtures("servers_removed")

SERVER = {
    *("name", "transport", "command", "args", "url", "secretNames", "oauth"),
    *("enabled", "status"),
    *("problem", "toolCount", "checkedAt", "version", "createdAt", "updatedAt"),
}


@pytest.fixture
async def keeper(stack: Stack, member: ApiUser) -> ApiUser:
    """An administrator who speaks through the recording client."""
    await stack.inspection.execute(
        "UPDATE users SET role = 'admin' WHERE id = $1", uuid.UUID(member.id)
    )
    return member


def a_process(**fields: object) -> dict[str, Any]:
    return {
        "name": f"s{uuid.uuid4().hex[:20]}",
        "transport": "stdio",
        "command": sys.executable,
        "args": ["-c", PROGRAMS["crash"]],
        **fields,
    }


def a_site(**fields: object) -> dict[str, Any]:
    return {
        "name": f"h{uuid.uuid4().hex[:20]}",
        "transport": "http",
        "url": "http://127.0.0.1:1/mcp",
        **fields,
    }


async def post(keeper: ApiUser, body: dict[str, Any], key: str | None = None) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return await keeper.request("POST", "/admin/mcp-servers", json=body, headers=headers)


async def new_server(keeper: ApiUser, body: dict[str, Any]) -> dict[str, Any]:
    response = await post(keeper, body)
    assert response.status_code == 201, response.text
    data: dict[str, Any] = response.json()["data"]
    return data


async def test_a_server_is_registered_read_listed_changed_and_deleted(keeper: ApiUser) -> None:
    server = await new_server(keeper, a_process(env={"TOKEN": "hush-hush", "A": ""}))
    path = f"/admin/mcp-servers/{server['name']}"

    read = await keeper.request("GET", path)
    listed = await keeper.request("GET", "/admin/mcp-servers", params={"limit": 100})
    changed = await keeper.request(
        "PATCH",
        path,
        json={"command": "other", "args": [], "env": {}, "enabled": False},
        headers={"If-Match": '"1"'},
    )
    stale = await keeper.request("PATCH", path, json={"enabled": True}, headers={"If-Match": '"1"'})
    deleted = await keeper.request("DELETE", path)

    assert set(server) == SERVER
    assert (server["secretNames"], server["status"], server["toolCount"]) == (
        ["A", "TOKEN"],
        "unknown",
        0,
    )
    assert read.json()["data"]["name"] == server["name"]
    assert server["name"] in [row["name"] for row in listed.json()["data"]]
    assert "hush-hush" not in read.text + listed.text
    assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')
    assert changed.json()["data"]["secretNames"] == []
    assert (stale.status_code, deleted.status_code) == (412, 204)
    for method, address in (("GET", path), ("DELETE", path), ("POST", f"{path}/refresh")):
        assert (await keeper.request(method, address)).status_code == 404
    assert (await keeper.request("PATCH", path, json={"enabled": True})).status_code == 404


async def test_a_refresh_reports_what_is_wrong_with_a_server(keeper: ApiUser) -> None:
    server = await new_server(keeper, a_process())

    response = await keeper.request("POST", f"/admin/mcp-servers/{server['name']}/refresh")

    data = response.json()["data"]
    assert response.status_code == 200, response.text
    assert (data["status"], data["problem"]) == ("failing", "The process exited with status 7.")
    assert data["version"] == server["version"]


async def test_a_non_public_http_server_is_reported_as_failing(keeper: ApiUser) -> None:
    server = await new_server(keeper, a_site(url="http://localhost:1/mcp?key=hidden"))

    response = await keeper.request("POST", f"/admin/mcp-servers/{server['name']}/refresh")

    assert response.json()["data"]["status"] == "failing"
    assert "EVERTURN_ALLOWED_PRIVATE_HOSTS" in response.json()["data"]["problem"]


async def test_the_audit_log_names_the_changes_without_secrets(
    keeper: ApiUser, stack: Stack
) -> None:
    server = await new_server(
        keeper, a_site(url="http://127.0.0.1:1/?key=hidden", headers={"X": "hush"})
    )
    path = f"/admin/mcp-servers/{server['name']}"
    await keeper.request("PATCH", path, json={"headers": {"Y": "hush"}})
    await keeper.request("POST", f"{path}/refresh")
    await keeper.request("DELETE", path)

    audited = await stack.inspection.rows(
        "SELECT action, details::text AS details FROM audit_log WHERE resource_id = $1 ORDER BY id",
        server["name"],
    )

    assert [row["action"] for row in audited] == [
        f"mcp_server.{deed}" for deed in ("created", "changed", "refreshed", "deleted")
    ]
    assert "hush" not in str(audited)
    assert "hidden" not in str(audited)


async def test_a_key_never_returns_a_different_server_of_the_same_name(
    keeper: ApiUser,
) -> None:
    body, key, address = a_process(), uuid.uuid4().hex, "/admin/mcp-servers/"
    first = await post(keeper, body, key)
    await keeper.request("DELETE", address + body["name"])

    gone = await post(keeper, body, key)
    second = await post(keeper, body, "a-" + key)
    still_gone = await post(keeper, body, key)
    replayed = await post(keeper, body, "a-" + key)

    assert (first.status_code, second.status_code) == (201, 201)
    assert (gone.status_code, still_gone.status_code) == (409, 409)
    assert still_gone.json()["error"]["code"] == "IDEMPOTENCY_CONFLICT"
    # Its health may have changed since.
    assert replayed.json()["data"]["createdAt"] == second.json()["data"]["createdAt"]


async def test_one_of_two_servers_with_the_same_name_is_created(keeper: ApiUser) -> None:
    body = a_process()

    answers = await asyncio.gather(*(post(keeper, body) for _ in range(3)))

    assert sorted(answer.status_code for answer in answers) == [201, 409, 409]


async def test_the_same_key_registers_one_server(keeper: ApiUser) -> None:
    body, key = a_process(env={"TOKEN": "one"}), uuid.uuid4().hex

    first = await post(keeper, body, key)
    again = await post(keeper, body, key)
    other = await post(keeper, {**body, "env": {"TOKEN": "two"}}, key)

    assert again.json()["data"]["createdAt"] == first.json()["data"]["createdAt"]
    assert other.json()["error"]["code"] == "IDEMPOTENCY_CONFLICT"


@pytest.mark.parametrize(
    "body",
    [
        a_process(name="two__parts"),
        a_process(name="under_score"),
        a_process(name=""),
        a_process(command=""),
        a_process(command="a\x00b"),
        a_process(args="one"),
        a_process(args=["x"] * 101),
        a_process(env={"A=B": "x"}),
        a_process(env={"A": "x\x00"}),
        a_process(env={"A": 7}),
        a_process(url="https://example.com"),
        a_site(url="https://user:word@example.com"),
        a_site(url="stdio"),
        a_site(headers={"Host": "x"}),
        a_site(headers={"X": "a\r\nb"}),
        a_site(command="x"),
        {"name": "a", "transport": "carrier-pigeon"},
        {"name": "a"},
        {},
        [],
    ],
)
async def test_invalid_requests_are_rejected(keeper: ApiUser, body: Any) -> None:  # noqa: ANN401 -- any JSON
    response = await post(keeper, body)

    assert response.status_code == 400, response.text
    assert response.json()["error"]["details"]


@pytest.mark.parametrize(
    ("body", "change", "path"),
    [
        (a_process(), {"url": "https://example.com"}, "body.url"),
        (a_process(), {"headers": {}}, "body.headers"),
        (a_site(), {"command": "x"}, "body.command"),
        (a_site(), {"args": []}, "body.args"),
    ],
)
async def test_a_server_keeps_its_transport(
    keeper: ApiUser, body: dict[str, Any], change: dict[str, Any], path: str
) -> None:
    server = await new_server(keeper, {**body, "name": f"t{uuid.uuid4().hex[:20]}"})

    response = await keeper.request("PATCH", f"/admin/mcp-servers/{server['name']}", json=change)

    assert response.status_code == 400
    assert response.json()["error"]["details"][0]["path"] == path


async def test_users_see_no_server(keeper: ApiUser, other_user: ApiUser) -> None:
    server = await new_server(keeper, a_process())

    for method, path in (
        ("GET", "/admin/mcp-servers"),
        ("GET", f"/admin/mcp-servers/{server['name']}"),
        ("POST", f"/admin/mcp-servers/{server['name']}/refresh"),
        ("DELETE", f"/admin/mcp-servers/{server['name']}"),
    ):
        assert (await other_user.request(method, path)).status_code == 403


def test_the_documentation_distinguishes_the_transports(stack: Stack) -> None:
    operation = stack.app.openapi()["paths"]["/api/v1/admin/mcp-servers"]["post"]

    body = operation["requestBody"]["content"]["application/json"]["schema"]
    assert body["discriminator"]["propertyName"] == "transport"
    assert set(body["discriminator"]["mapping"]) == {"http", "stdio"}


OAUTH = {"clientId": "everturn", "clientSecret": "hush-hush", "scope": "tools:read"}


async def test_client_credentials_are_shown_without_their_secret(
    keeper: ApiUser, stack: Stack
) -> None:
    server = await new_server(
        keeper, a_site(oauth={**OAUTH, "tokenUrl": "https://id.example.com/t"})
    )
    shown = {"clientId": "everturn", "tokenUrl": "https://id.example.com/t", "scope": "tools:read"}
    path = f"/admin/mcp-servers/{server['name']}"

    changed = await keeper.request("PATCH", path, json={"oauth": OAUTH})
    stored = await stack.inspection.value(
        "SELECT oauth_secret FROM mcp_servers WHERE name = $1", server["name"]
    )
    taken_away = await keeper.request("PATCH", path, json={"oauth": None})

    assert server["oauth"] == shown
    assert changed.json()["data"]["oauth"] == {**shown, "tokenUrl": None}
    assert b"hush" not in stored
    assert taken_away.json()["data"]["oauth"] is None
    assert (await keeper.request("GET", path)).json()["data"]["oauth"] is None


@pytest.mark.parametrize(
    "oauth",
    [
        {"clientId": "everturn"},
        {**OAUTH, "clientId": ""},
        {**OAUTH, "tokenUrl": "ftp://id.example.com"},
        {**OAUTH, "scope": "two  spaces"},
        {**OAUTH, "grantType": "password"},
    ],
)
async def test_invalid_client_credentials_are_rejected(
    keeper: ApiUser, oauth: dict[str, Any]
) -> None:
    response = await post(keeper, a_site(oauth=oauth))

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "VALIDATION_ERROR"


async def test_oauth_and_an_authorization_header_exclude_each_other(keeper: ApiUser) -> None:
    twice = await post(keeper, a_site(oauth=OAUTH, headers={"authorization": "Bearer x"}))
    server = await new_server(keeper, a_site(headers={"Authorization": "Bearer x"}))
    path = f"/admin/mcp-servers/{server['name']}"
    later = await keeper.request("PATCH", path, json={"oauth": OAUTH})
    instead = await keeper.request("PATCH", path, json={"oauth": OAUTH, "headers": {}})

    assert (twice.status_code, later.status_code, instead.status_code) == (400, 400, 200)


async def test_a_process_has_no_client_credentials(keeper: ApiUser) -> None:
    server = await new_server(keeper, a_process())

    changed = await keeper.request(
        "PATCH", f"/admin/mcp-servers/{server['name']}", json={"oauth": OAUTH}
    )

    assert changed.status_code == 400
