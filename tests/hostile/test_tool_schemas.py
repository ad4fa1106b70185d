"""Tools whose schemas a provider refuses, and a provider that refuses tools all the same."""

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest

from tests.fakes.scripted_model.raw_answers import RawAnswer
from tests.fakes.scripted_model.request_log import RequestRecord
from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.running_everturn.bystanders import Others
from tests.running_everturn.client import Client, names
from tests.running_everturn.stack import ScriptedStack
from tests.running_everturn.tools import administrator
from tests.running_everturn.waiting import eventually
from tests.unit.test_offered_schema import NESTED, ODATA, ROUTE_OR_FILE

# Lists the tools of a file, and answers each call with its arguments.
_SERVER: Final = """
import json, sys
for line in sys.stdin:
    call = json.loads(line)
    if "id" not in call:
        continue
    params = call.get("params") or {}
    result = {
        "initialize": {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
                       "serverInfo": {"name": "tools of others", "version": "1"}},
        "tools/list": {"tools": json.load(open(sys.argv[1]))},
        "tools/call": {"content": [{"type": "text", "text": json.dumps(params.get("arguments"))}]},
    }.get(call["method"], {})
    print(json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": result}), flush=True)
"""
_TOOLS: Final[list[dict[str, Any]]] = [
    {"name": "find", "inputSchema": ROUTE_OR_FILE},
    {"name": "query", "inputSchema": ODATA},
    {"name": "filter", "inputSchema": NESTED},
    {"name": "broken", "inputSchema": {"type": "object", "properties": {"a": {"type": 7}}}},
    {"name": "größe", "inputSchema": {"type": "object"}},
]


@pytest.fixture
async def admin(everturn: ScriptedStack, client: Client) -> AsyncIterator[Client]:
    yield await administrator(everturn, client)
    for table in ("workflow_tools", "mcp_servers"):
        await everturn.query(f"DELETE FROM {table}")


@pytest.fixture
async def server(admin: Client, tmp_path: Path) -> str:
    """An MCP server with these tools, listed."""
    program, listed = tmp_path / "server.py", tmp_path / "tools.json"
    program.write_text(_SERVER)
    listed.write_text(json.dumps(_TOOLS))
    name = f"s{uuid4().hex[:8]}"
    await admin.api.admin.mcp_servers.create_stdio(
        name=name, command=sys.executable, args=[str(program), str(listed)]
    )

    async def status() -> str:
        return (await admin.api.admin.mcp_servers.get(name)).status

    await eventually(status, lambda seen: seen == "healthy")
    return name


def tools_in(request: RequestRecord) -> list[str]:
    assert request.body is not None
    return [tool["name"] for tool in request.body["tools"]]


async def problems(admin: Client) -> dict[str, str | None]:
    """Return why tools are not offered, by name."""
    return {tool.name: tool.problem async for tool in admin.api.admin.tools.list(kind="mcp")}


async def test_tools_with_schemas_that_providers_refuse_work_and_harm_nobody(
    everturn: ScriptedStack, admin: Client, server: str, others: Others
) -> None:
    webhook = await admin.request(
        "POST",
        "/admin/workflow-tools",
        {
            "name": f"w{uuid4().hex[:8]}",
            "description": "Measures.",
            "url": "https://example.com/hook",
            "inputSchema": ODATA | {"anyOf": [{"required": ["$top"]}]},
            "secret": "at least sixteen characters",
        },
    )
    question = uuid4().hex
    calls = (
        ToolCall(name=f"{server}__query", input={"top": 5, "Groesse_in_cm": 1.5}),
        ToolCall(name=f"{server}__query", input={"top": "x"}),
        ToolCall(name=f"{server}__find", input={}),
        ToolCall(name=f"{server}__filter", input={"filters": [{"id": "a"}], "free": {"id": 1}}),
    )
    everturn.model.add(Script(match=question, tool_calls=calls))
    everturn.model.add(Script(match=question, text="Done."))

    async with others("schemas that providers refuse"), admin.ask(question) as stream:
        events = await stream.to_end()

    ended = {
        event.data["toolCallId"]: event.data for event in events if event.name == "tool_call"
    }.values()
    no_alternative = (
        "matches none of the alternatives of `anyOf`: (1) required but missing: `route`; (2) "
        "required but missing: `file`."
    )
    assert events[-1].status == "completed"
    assert [(call["input"], call["output"]) for call in ended] == [
        ({"$top": 5, "Größe in cm": 1.5}, '{"$top": 5, "Gr\\u00f6\\u00dfe in cm": 1.5}'),
        (
            {"$top": "x"},
            f"Invalid input to {server}__query: `top`: expected integer, got string.",
        ),
        (
            {},
            f"Invalid input to {server}__find: {no_alternative}",
        ),
        (
            {"filters": [{"@id": "a"}], "free": {"id": 1}},
            '{"free": {"id": 1}, "filters": [{"@id": "a"}]}',
        ),
    ]
    first, second = everturn.model.requests_matching(question)
    assert second.body is not None
    assert webhook.status_code == 201
    assert webhook.json()["data"]["name"] in tools_in(first)
    said = [
        block for block in second.body["messages"][-2]["content"] if block["type"] == "tool_use"
    ]
    assert said[0]["input"] == {"top": 5, "Groesse_in_cm": 1.5}
    assert len(await everturn.ledger(stream.turn_id)) == 2
    assert await problems(admin) == {
        f"{server}__find": None,
        f"{server}__query": None,
        f"{server}__filter": None,
        f"{server}__gro_e": None,
        f"{server}__broken": "Skipped: its input schema is not a valid JSON schema (2020-12): see "
        "`properties/a/type`.",
    }
    shown = await admin.api.admin.mcp_servers.get(server)
    assert shown.status == "healthy"
    assert "`broken`" in str(shown.problem)


@pytest.mark.parametrize("names_it", [True, False])
async def test_a_tool_that_the_provider_refuses_is_left_out_once_and_for_all(
    everturn: ScriptedStack, admin: Client, server: str, others: Others, *, names_it: bool
) -> None:
    question, tool = uuid4().hex, f"{server}__query"

    async with admin.ask("which tools there are") as before:
        await before.to_end()
    sent = tools_in(everturn.model.requests_matching("which tools there are")[-1])
    where = f"tools.{sent.index(tool)}.custom." if names_it else ""
    message = f"{where}input_schema: not supported by this model"
    error = {"type": "invalid_request_error", "message": message}
    refusal = json.dumps({"type": "error", "error": error}).encode()
    json_type = {"content-type": "application/json"}
    everturn.model.add_raw(
        RawAnswer(match=question, chunks=[refusal], status=400, headers=json_type)
    )

    async with others("schemas that providers refuse"), admin.ask(question) as stream:
        events = await stream.to_end()
    async with admin.ask(f"again {question}") as again:
        after = await again.to_end()

    assert (events[-1].status, after[-1].status) == ("completed", "completed")
    assert [event.data["code"] for event in events if event.name == "notice"] == ["tools_left_out"]
    assert "notice" not in names(after)
    refused, answered, later = everturn.model.requests_matching(question)
    assert tool in tools_in(refused)
    for request in (answered, later):
        assert tool not in tools_in(request)
        assert f"{server}__find" in tools_in(request)
    assert [row["status"] for row in await everturn.ledger(stream.turn_id)] == ["settled"]
    assert str((await problems(admin))[tool]).startswith("Refused by the model's provider.")
    shown = await admin.api.admin.mcp_servers.get(server)
    assert "Refused by the model's provider: `query`." in str(shown.problem)
    alerts = [alert.resource_id async for alert in admin.api.admin.alerts(kind="tool.refused")]
    assert alerts[0] == tool
    await admin.api.admin.mcp_servers.refresh(server)
    assert (await problems(admin))[tool] is not None
    assert (await admin.api.admin.tools.update(tool, enabled=True)).problem is None
    assert (await problems(admin))[tool] is None
