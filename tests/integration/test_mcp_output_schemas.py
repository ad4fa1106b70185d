"""Turns whose MCP tools satisfy, break or misstate their output schemas."""

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.fakes.mcp_server import serving_mcp
from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.event_stream import Event, named, rebuild
from tests.fixtures.mcp import SCRIPT
from tests.fixtures.stack import Stack

BY_HAND = str(Path(SCRIPT).with_name("mcp_by_hand.py"))
LIE = (
    "(The call succeeded, but its structured content does not match the output schema "
    "that the server declares: `temperature`: expected number, got string.)"
)
OMISSION = (
    "(The call succeeded, but returned no structured content, although the server declares an "
    "output schema.)"
)


async def registered(admin: ApiUser, **body: object) -> dict[str, Any]:
    """Register a server, have its tools listed, and return it."""
    body["name"] = f"s{uuid4().hex[:20]}"
    response = await admin.request("POST", "/admin/mcp-servers", json=body)
    assert response.status_code == 201, response.text
    listed = await admin.request("POST", f"/admin/mcp-servers/{body['name']}/refresh")
    server: dict[str, Any] = listed.json()["data"]
    assert server["status"] == "healthy"
    return server


@pytest.fixture(scope="module", params=["stdio", "http"])
async def server(request: pytest.FixtureRequest, stack: Stack) -> AsyncIterator[dict[str, Any]]:
    """The server with tools, over each transport."""
    admin = await stack.sign_up_admin()
    async with AsyncExitStack() as opened:
        if request.param == "stdio":
            where: dict[str, Any] = {"command": sys.executable, "args": [SCRIPT, "tools"]}
        else:
            where = {"url": (await opened.enter_async_context(serving_mcp("tools"))).url}
        made = await registered(admin, transport=request.param, **where)
        yield made
        await admin.request("DELETE", f"/admin/mcp-servers/{made['name']}")


async def called(stack: Stack, tool: str) -> dict[str, Any]:
    """Have a model call the tool and go on, and return the last event of the call."""
    person, question = await stack.sign_up(), unique()
    stack.model.add(Script(match=question, tool_calls=(ToolCall(name=tool),)))
    stack.model.add(Script(match=question, text="I see."))
    events: list[Event] = await person.events_of(await person.create_chat(), question)
    assert rebuild(events) == "I see."
    return named(events, "tool_call")[-1].data


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        ("keep", '{"temperature":21.5}'),
        ("lie", f'{LIE}\n{{"temperature":"warm"}}'),
        ("omit", f"{OMISSION}\nIt is warm."),
        ("vow", '{"temperature":"warm"}'),
        ("change", "changed"),
        ("weather_now", f'{LIE}\n{{"temperature":"warm"}}'),
    ],
)
async def test_a_turn_continues_with_the_tools_result(
    stack: Stack, server: dict[str, Any], tool: str, expected: str
) -> None:
    call = await called(stack, f"{server['name']}__{tool}")

    assert (call["status"], call["output"]) == ("completed", expected)


async def test_an_error_of_a_tool_is_not_checked_against_its_output_schema(
    stack: Stack, server: dict[str, Any]
) -> None:
    call = await called(stack, f"{server['name']}__fail")

    assert (call["status"], call["output"]) == ("failed", "There is no such city.")


async def test_an_invalid_output_schema_is_shown_to_administrators(
    server: dict[str, Any],
) -> None:
    assert server["problem"] == (
        "Results not validated: `vow` (its output schema is not a valid JSON schema "
        "(2020-12): see `properties/temperature/type`)."
    )


async def test_a_tool_whose_output_schema_is_not_an_object_is_listed(
    stack: Stack, admin: ApiUser
) -> None:
    where = {"command": sys.executable, "args": [BY_HAND, "pid"]}
    made = await registered(admin, transport="stdio", **where)

    rows = await stack.inspection.rows(
        "SELECT output_schema FROM mcp_tools WHERE server = $1 AND name = 'vow'", made["name"]
    )

    assert [row["output_schema"] for row in rows] == [None]
    assert "Results not validated: `vow`" in made["problem"]
    await admin.request("DELETE", f"/admin/mcp-servers/{made['name']}")
