"""Tools over HTTP, for users and for administrators."""

import uuid
from asyncio import Event
from typing import Any

import httpx
import pytest

from tests.fakes.webhook_engine import a_web_page, at_once, later, never
from tests.fixtures.api_user import ApiUser
from tests.fixtures.stack import Stack
from tests.fixtures.tool_settings import changed_settings
from tests.fixtures.workflow_tools import engine_for, register_tool

TOOL = {
    *("name", "description", "inputSchema", "kind", "approval", "retryClass", "timeoutS"),
    "enabledByUser",
}
ADMINISTERED = {
    *("name", "kind", "server", "description", "inputSchema", "defaultApproval", "retryClass"),
    *("timeoutS", "costUsd", "enabled", "problem", "approval", "roles", "changedAt", "version"),
    "nameOnServer",
}
LOCAL = [
    *("calculator", "datetime", "deep_reasoning", "knowledge_search", "recall", "remember"),
]


@pytest.fixture
async def keeper(stack: Stack, member: ApiUser) -> ApiUser:
    """An administrator with the recording client."""
    await stack.inspection.execute(
        "UPDATE users SET role = 'admin' WHERE id = $1", uuid.UUID(member.id)
    )
    return member


def local_names(response: httpx.Response) -> list[str]:
    """Return the tools of a list that are the same for every test."""
    return [tool["name"] for tool in response.json()["data"] if tool["name"] in LOCAL]


async def test_users_list_and_read_their_tools(member: ApiUser) -> None:
    listed = await member.request("GET", "/tools")
    one = await member.request("GET", "/tools/calculator")

    tools = listed.json()["data"]
    assert local_names(listed) == LOCAL
    assert set(tools[0]) == TOOL
    assert one.json()["data"] == tools[0]
    assert tools[0]["inputSchema"]["type"] == "object"
    assert (tools[0]["kind"], tools[0]["approval"]) == ("local", "auto")


async def test_tools_are_listed_page_by_page(member: ApiUser) -> None:
    first = await member.request("GET", "/tools", params={"limit": 1})
    cursor = first.json()["meta"]["nextCursor"]
    second = await member.request("GET", "/tools", params={"limit": 1, "cursor": cursor})

    # Other tests leave tools of servers, more than a default page holds.
    rest = await member.request("GET", "/tools", params={"limit": 100, "cursor": cursor})
    assert local_names(first) == LOCAL[:1]
    assert local_names(second) == LOCAL[1:2]
    assert local_names(rest) == LOCAL[1:]
    assert rest.json()["meta"]["nextCursor"] is None
    assert (await member.request("GET", "/tools", params={"cursor": "x"})).status_code == 400


@pytest.mark.parametrize(("name", "status"), [("nothing", 404), ("a%00b", 400), ("x" * 201, 400)])
async def test_a_missing_tool(member: ApiUser, name: str, status: int) -> None:
    assert (await member.request("GET", f"/tools/{name}")).status_code == status


async def test_administrators_list_tools_of_all_kinds(keeper: ApiUser, stack: Stack) -> None:
    server, webhook = f"c{uuid.uuid4().hex[:16]}", f"w{uuid.uuid4().hex[:16]}"
    await stack.inspection.execute(
        "INSERT INTO mcp_servers (name, transport, command) VALUES ($1, 'stdio', 'x')", server
    )
    await stack.inspection.execute(
        "INSERT INTO mcp_tools (server, name, input_schema) VALUES ($1, 'say__it', '{}')", server
    )
    await stack.inspection.execute(
        "INSERT INTO workflow_tools (name, description, url, input_schema, secret) "
        "VALUES ($1, 'd', 'https://example.com', '{}', '')",
        webhook,
    )

    tools = await all_pages(keeper)

    assert {"calculator", "datetime", f"{server}__say__it", webhook} <= {*tools}
    assert list(tools) == sorted(tools)
    assert all(set(tool) == ADMINISTERED for tool in tools.values())
    found = tools[f"{server}__say__it"]
    assert (found["kind"], found["server"], found["version"]) == ("mcp", server, 1)
    assert tools[webhook]["kind"] == "workflow"
    assert list(await all_pages(keeper, kind="local")) == LOCAL


async def all_pages(keeper: ApiUser, **chosen: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    cursor: dict[str, str] = {}
    while True:
        response = await keeper.request(
            "GET", "/admin/tools", params={"limit": 2, **chosen, **cursor}
        )
        assert response.status_code == 200, response.text
        found |= {tool["name"]: tool for tool in response.json()["data"]}
        following = response.json()["meta"]["nextCursor"]
        if following is None:
            return found
        cursor = {"cursor": following}


async def test_administrators_change_and_reset_the_settings_of_a_tool(keeper: ApiUser) -> None:
    async with changed_settings(
        keeper, "datetime", enabled=False, approval="ask", roles=["admin"]
    ) as tag:
        shown = (await all_pages(keeper))["datetime"]
        stale = await keeper.request(
            "PATCH", "/admin/tools/datetime", json={"enabled": True}, headers={"If-Match": '"1"'}
        )

    assert (shown["enabled"], shown["approval"], shown["roles"]) == (False, "ask", ["admin"])
    assert (shown["defaultApproval"], tag) == ("auto", f'"{shown["version"]}"')
    assert stale.status_code == 412
    after = (await all_pages(keeper))["datetime"]
    assert (after["enabled"], after["approval"], after["roles"]) == (True, None, None)


async def test_settings_of_server_tools_use_their_qualified_names(
    keeper: ApiUser, stack: Stack
) -> None:
    server = f"d{uuid.uuid4().hex[:16]}"
    await stack.inspection.execute(
        "INSERT INTO mcp_servers (name, transport, command) VALUES ($1, 'stdio', 'x')", server
    )
    await stack.inspection.execute(
        "INSERT INTO mcp_tools (server, name, input_schema) VALUES ($1, 'say', '{}')", server
    )

    changed = await keeper.request(
        "PATCH", f"/admin/tools/{server}__say", json={"enabled": False}, headers={"If-Match": '"1"'}
    )
    absent = await keeper.request("PATCH", f"/admin/tools/{server}__no", json={"enabled": False})
    deleted = await keeper.request("DELETE", f"/admin/mcp-servers/{server}")

    assert changed.json()["data"]["enabled"] is False
    assert (changed.headers["etag"], absent.status_code, deleted.status_code) == ('"2"', 404, 204)
    kept = await stack.inspection.value(
        "SELECT count(*) FROM tool_settings WHERE name = $1", f"{server}__say"
    )
    assert kept == 0


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"enabled": None},
        {"enabled": "yes"},
        {"approval": "maybe"},
        {"roles": []},
        {"roles": ["king"]},
        {"roles": ["admin", "user", "admin"]},
        {"name": "other"},
    ],
)
async def test_invalid_settings_are_refused(keeper: ApiUser, body: dict[str, Any]) -> None:
    response = await keeper.request("PATCH", "/admin/tools/calculator", json=body)

    assert response.status_code == 400, response.text
    assert response.json()["error"]["code"] == "VALIDATION_ERROR"


@pytest.mark.parametrize(
    ("tool_input", "output", "is_error"),
    [
        ({"expression": "12 * 34"}, "408", False),
        ({"expression": 7}, "Invalid input to calculator", True),
        ({}, "Invalid input to calculator", True),
        ({"expression": "9 ** 9 ** 9 ** 9"}, "", True),
    ],
)
async def test_a_trial_returns_the_outcome(
    keeper: ApiUser, tool_input: dict[str, Any], output: str, *, is_error: bool
) -> None:
    response = await keeper.request(
        "POST", "/admin/tools/calculator/test", json={"input": tool_input}
    )

    data = response.json()["data"]
    assert set(data) == {"output", "isError", "durationMs"}
    assert data["isError"] is is_error
    assert output in data["output"]


async def test_a_trial_of_a_webhook_returns_its_failures(keeper: ApiUser, stack: Stack) -> None:
    async with engine_for(stack) as engine:
        tool = await register_tool(keeper, engine, timeout_s=1)
        path = f"/admin/tools/{tool.name}/test"
        engine.script(tool.name, at_once({"ticket": 7}), a_web_page(), later(), never(Event()))
        tried = [await keeper.request("POST", path, json={"input": {}}) for _ in range(4)]
        invalid = await keeper.request("POST", path, json={"input": {"title": 1}})

    outcomes = [response.json()["data"] for response in (*tried, invalid)]
    assert [outcome["isError"] for outcome in outcomes] == [False, True, False, True, True]
    assert outcomes[0]["output"] == '{"ticket":7}'
    assert outcomes[3]["output"] == "The tool did not answer within 1 s."


async def test_a_trial_of_a_missing_tool_or_with_an_unstorable_input_is_refused(
    keeper: ApiUser,
) -> None:
    absent = await keeper.request("POST", "/admin/tools/nothing/test", json={"input": {}})
    nul = await keeper.request(
        "POST", "/admin/tools/calculator/test", json={"input": {"a": ["\x00"]}}
    )

    assert absent.status_code == 404
    assert (nul.status_code, nul.json()["error"]["details"][0]["path"]) == (400, "body.input")


async def test_users_cannot_change_settings_or_run_trials(member: ApiUser) -> None:
    for method, path, body in (
        ("GET", "/admin/tools", None),
        ("PATCH", "/admin/tools/calculator", {"enabled": False}),
        ("POST", "/admin/tools/calculator/test", {"input": {}}),
    ):
        assert (await member.request(method, path, json=body)).status_code == 403
