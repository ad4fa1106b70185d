"""Workflow tools over HTTP: registered, changed and deleted by administrators."""

import asyncio
import uuid
from dataclasses import replace
from typing import Any

import httpx
import pytest

from api.app import create_app
from services.tools.secrets import SecretVault
from services.workflow_tools.service import WorkflowToolService, secret_owner
from tests.fixtures.api_user import ApiUser
from tests.fixtures.serving import serving
from tests.fixtures.stack import Stack, api_client

TOOL = {
    *("name", "description", "url", "inputSchema", "timeoutS", "retryClass", "approval"),
    *("enabled", "problem", "version", "createdAt", "updatedAt"),
}
SECRET = "sixteen characters at least"
SCHEMA = {"type": "object", "properties": {"title": {"type": "string"}}}


@pytest.fixture
async def keeper(stack: Stack, member: ApiUser) -> ApiUser:
    """An administrator who speaks through the recording client."""
    await stack.inspection.execute(
        "UPDATE users SET role = 'admin' WHERE id = $1", uuid.UUID(member.id)
    )
    return member


def a_tool(**fields: Any) -> dict[str, Any]:  # noqa: ANN401 -- any JSON
    return {
        "name": f"w{uuid.uuid4().hex[:20]}",
        "description": "Opens a ticket.",
        "url": "https://hooks.example.com/tickets?token=hidden-in-url",
        "inputSchema": SCHEMA,
        "secret": SECRET,
        **fields,
    }


async def post(keeper: ApiUser, body: dict[str, Any], key: str | None = None) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return await keeper.request("POST", "/admin/workflow-tools", json=body, headers=headers)


async def new_tool(keeper: ApiUser, **fields: object) -> dict[str, Any]:
    response = await post(keeper, a_tool(**fields))
    assert response.status_code == 201, response.text
    data: dict[str, Any] = response.json()["data"]
    return data


async def test_a_workflow_tool_is_registered_read_listed_changed_and_deleted(
    keeper: ApiUser,
) -> None:
    tool = await new_tool(keeper)
    path = f"/admin/workflow-tools/{tool['name']}"

    read = await keeper.request("GET", path)
    listed = await keeper.request("GET", "/admin/workflow-tools", params={"limit": 100})
    changed = await keeper.request(
        "PATCH",
        path,
        json={"timeoutS": 5, "approval": "ask", "enabled": False, "retryClass": "never"},
        headers={"If-Match": '"1"'},
    )
    stale = await keeper.request("PATCH", path, json={"timeoutS": 9}, headers={"If-Match": '"1"'})
    deleted = await keeper.request("DELETE", path)

    assert set(tool) == TOOL
    assert (tool["timeoutS"], tool["retryClass"], tool["approval"]) == (30, "keyed", "auto")
    assert read.json()["data"] == tool
    assert tool in listed.json()["data"]
    assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')
    assert changed.json()["data"]["enabled"] is False
    assert (stale.status_code, deleted.status_code) == (412, 204)
    for method in ("GET", "DELETE"):
        assert (await keeper.request(method, path)).status_code == 404
    assert (await keeper.request("PATCH", path, json={"timeoutS": 5})).status_code == 404


async def test_a_secret_is_stored_encrypted_and_never_shown_or_logged(
    keeper: ApiUser, stack: Stack
) -> None:
    tool = await new_tool(keeper)
    answer = await keeper.request(
        "PATCH", f"/admin/workflow-tools/{tool['name']}", json={"secret": "another secret of ours"}
    )

    stored: bytes = await stack.inspection.value(
        "SELECT secret FROM workflow_tools WHERE name = $1", tool["name"]
    )
    audited = await stack.inspection.rows(
        "SELECT action, details::text AS details FROM audit_log WHERE resource_id = $1 ORDER BY id",
        tool["name"],
    )
    assert "secret of ours" not in answer.text
    assert b"secret of ours" not in stored
    keys = stack.settings.encryption_keys
    assert keys is not None
    vault = SecretVault(keys.get_secret_value())
    assert vault.open(stored, owner=secret_owner(tool["name"])) == b"another secret of ours"
    assert [row["action"] for row in audited] == [
        "workflow_tool.created",
        "workflow_tool.changed",
    ]
    assert "hidden-in-url" not in str(audited)
    assert "of ours" not in str(audited)


@pytest.mark.parametrize("name", ["calculator", "datetime"])
async def test_a_name_that_a_local_tool_has_is_taken(keeper: ApiUser, name: str) -> None:
    response = await post(keeper, a_tool(name=name))

    assert (response.status_code, response.json()["error"]["code"]) == (409, "CONFLICT")


async def test_a_key_never_returns_a_different_tool_of_the_same_name(
    keeper: ApiUser,
) -> None:
    body, key, address = a_tool(), uuid.uuid4().hex, "/admin/workflow-tools/"
    first = await post(keeper, body, key)
    await keeper.request("DELETE", address + body["name"])

    gone = await post(keeper, body, key)
    second = await post(keeper, body, "a-" + key)
    still_gone = await post(keeper, body, key)
    replayed = await post(keeper, body, "a-" + key)

    assert (first.status_code, second.status_code) == (201, 201)
    assert (gone.status_code, still_gone.status_code) == (409, 409)
    assert still_gone.json()["error"]["code"] == "IDEMPOTENCY_CONFLICT"
    assert replayed.json()["data"] == second.json()["data"]


async def test_one_of_two_tools_with_the_same_name_is_created(keeper: ApiUser) -> None:
    body = a_tool()

    answers = await asyncio.gather(*(post(keeper, body) for _ in range(4)))

    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]


async def test_the_same_key_creates_one_tool_and_a_rejected_request_does_not_use_it(
    keeper: ApiUser,
) -> None:
    body, key = a_tool(), uuid.uuid4().hex

    first = await post(keeper, body, key)
    again = await post(keeper, body, key)
    other = await post(keeper, a_tool(), key)
    taken = await post(keeper, body, "a-" + key)
    retried = await post(keeper, a_tool(), "a-" + key)

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json()["data"] == first.json()["data"]
    assert other.json()["error"]["code"] == "IDEMPOTENCY_CONFLICT"
    assert taken.json()["error"]["code"] == "CONFLICT"
    assert retried.status_code == 201


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "has__two"),
        ("name", "1st"),
        ("name", ""),
        ("description", ""),
        ("description", "a\x00b"),
        ("url", "ftp://example.com"),
        ("url", "https://user:word@example.com"),
        ("inputSchema", {"type": "array"}),
        ("inputSchema", {"type": "object", "properties": {"a": {"$ref": "http://x.example"}}}),
        ("inputSchema", {"type": "object", "properties": {"a": {"minimum": "NaN"}}}),
        ("inputSchema", "text"),
        ("secret", "short"),
        ("secret", None),
        ("timeoutS", 0),
        ("timeoutS", 86401),
        ("timeoutS", "5"),
        ("retryClass", "often"),
        ("approval", "perhaps"),
        ("extra", 1),
    ],
)
async def test_invalid_requests_are_rejected_with_the_field(
    keeper: ApiUser, field: str, value: object
) -> None:
    response = await post(keeper, a_tool(**{field: value}))

    assert response.status_code == 400, response.text
    assert response.json()["error"]["details"][0]["path"].startswith(f"body.{field}")
    assert SECRET not in response.text


async def test_numbers_that_json_does_not_have_are_refused(keeper: ApiUser) -> None:
    body = (
        b'{"name": "nan", "description": "d", "url": "https://example.com", "secret": '
        b'"sixteen characters", "inputSchema": {"type": "object", "x": NaN}}'
    )
    response = await keeper.request(
        "POST",
        "/admin/workflow-tools",
        content=body,
        headers={"Content-Type": "application/json"},
    )

    assert response.status_code == 400


async def test_without_a_key_only_secrets_are_rejected(keeper: ApiUser, stack: Stack) -> None:
    tool = await new_tool(keeper)
    services = stack.services
    keyless = WorkflowToolService(
        services.operations.database, services.tools.workflow_tools._registry, SecretVault("")
    )
    tools = replace(services.tools, workflow_tools=keyless)
    app = create_app(replace(services, tools=tools), max_body_bytes=10_000)

    async with serving(app) as origin, api_client(origin) as http:
        elsewhere = ApiUser(http, keeper.session, email=keeper.email)
        refused = await post(elsewhere, a_tool())
        changed = await elsewhere.request(
            "PATCH", f"/admin/workflow-tools/{tool['name']}", json={"timeoutS": 7}
        )

    assert refused.status_code == 409
    assert "EVERTURN_ENCRYPTION_KEYS" in refused.json()["error"]["message"]
    assert changed.status_code == 200


async def test_users_see_no_workflow_tool(keeper: ApiUser, other_user: ApiUser) -> None:
    tool = await new_tool(keeper)

    for method, path in (
        ("GET", "/admin/workflow-tools"),
        ("GET", f"/admin/workflow-tools/{tool['name']}"),
        ("DELETE", f"/admin/workflow-tools/{tool['name']}"),
    ):
        assert (await other_user.request(method, path)).status_code == 403
