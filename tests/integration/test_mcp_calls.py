"""Calling tools of MCP servers over both transports, as they are meant to work."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import JsonValue

from schema.tools import RetryClass
from services.tools.definition import ToolOutcome, ToolProgress
from tests.fakes.mcp_server import serving_mcp
from tests.fakes.mcp_tools import EXTRA, NOTED
from tests.fixtures.mcp import McpScene, definition_of
from tests.fixtures.tool_executions import an_execution
from tests.running_everturn.waiting import eventually


@dataclass(frozen=True)
class Server:
    """A server that tests call."""

    scene: McpScene
    name: str
    journal: Path | None

    async def call(self, tool: str, **given: Any) -> ToolOutcome:  # noqa: ANN401 -- JSON
        """Call a tool."""
        return await self.scene.call(self.name, tool, **given)

    async def noted(self) -> list[str]:
        """Return what its tools noted."""
        if self.journal is None:
            return list(NOTED)
        return self.journal.read_text().split() if self.journal.exists() else []


@pytest.fixture(params=["stdio", "http", "http as json"])
async def server(
    request: pytest.FixtureRequest, mcp: McpScene, tmp_path: Path
) -> AsyncIterator[Server]:
    """The server with tools, over each transport."""
    NOTED.clear()
    EXTRA.clear()
    async with AsyncExitStack() as opened:
        if request.param == "stdio":
            journal = tmp_path / "journal"
            name = await mcp.process(JOURNAL=str(journal), TOKEN="hush-hush")
            yield Server(mcp, name, journal)
        else:
            as_json = request.param == "http as json"
            served = await opened.enter_async_context(serving_mcp("tools", as_json=as_json))
            yield Server(mcp, await mcp.http(served.url), None)


async def test_a_call_gets_its_answer_with_its_key_in_meta(server: Server) -> None:
    execution = an_execution(key="turn:1:call")
    given: dict[str, JsonValue] = {"city": "Köln", "nothing": None, "deep": {"list": [1, None]}}

    outcome = await server.scene.calls.run(definition_of(server.name, "echo"), given, execution)

    answer = json.loads(outcome.output)
    assert answer["arguments"] == given
    assert answer["meta"]["everturn/idempotencyKey"] == "turn:1:call"
    assert not outcome.is_error


async def test_concurrent_calls_share_a_connection_and_run_in_parallel(
    server: Server,
) -> None:
    calls = [server.call("together", number=number, many=20) for number in range(20)]

    outcomes = await asyncio.gather(*calls)

    numbers, pids = zip(*(outcome.output.split(" of ") for outcome in outcomes), strict=True)
    assert list(numbers) == [str(number) for number in range(20)]
    assert len(set(pids)) == 1


async def test_an_abandoned_call_is_cancelled_at_the_server_and_the_others_continue(
    server: Server,
) -> None:
    hanging = asyncio.create_task(server.call("hang"))
    await eventually(server.noted, lambda noted: noted == ["hanging"])
    before = json.loads((await server.call("echo")).output)["pid"]

    hanging.cancel()

    assert await eventually(server.noted, lambda noted: len(noted) == 2) == [
        "hanging",
        "cancelled",
    ]
    with pytest.raises(asyncio.CancelledError):
        await hanging
    assert json.loads((await server.call("echo")).output)["pid"] == before


async def test_a_tool_error_is_reported_to_the_model(server: Server) -> None:
    outcome = await server.call("fail")

    assert outcome == ToolOutcome(output="There is no such city.", is_error=True)


async def test_a_protocol_error_is_reported_to_the_model_without_secrets(
    server: Server,
) -> None:
    outcome = await server.call("refuse")

    assert outcome.is_error
    assert "no such city" in outcome.output
    assert "hush" not in outcome.output


async def test_a_tool_removed_since_it_was_listed_is_an_error_for_the_model(
    server: Server,
) -> None:
    outcome = await server.call("gone")

    assert outcome.is_error
    assert "Unknown tool: gone" in outcome.output


async def test_a_result_that_breaks_its_promised_schema_is_data_all_the_same(
    server: Server,
) -> None:
    outcome = await server.call("lie")

    assert outcome == ToolOutcome(output='{"temperature":"warm"}')


async def test_images_and_other_content_are_returned_as_blocks_and_text(server: Server) -> None:
    outcome = await server.call("show")

    assert [block["type"] for block in outcome.blocks] == ["text", "image", "text", "text", "text"]
    assert outcome.blocks[1]["source"]["media_type"] == "image/png"
    assert outcome.output.splitlines()[0] == "Here:"
    assert "file:///notes" in outcome.output
    assert "inlined" in outcome.output


async def test_an_answer_of_ten_mebibytes_fails_only_its_own_call(server: Server) -> None:
    hanging = asyncio.create_task(server.call("hang"))
    await eventually(server.noted, lambda noted: "hanging" in noted)

    outcome = await server.call("big")

    assert outcome.is_error
    assert "5 MiB" in outcome.output or "too large" in outcome.output
    assert not hanging.done()
    assert not (await server.call("echo")).is_error
    hanging.cancel()


async def test_a_server_that_asks_us_for_input_is_declined(server: Server) -> None:
    outcome = await server.call("ask")

    assert "declined" in outcome.output or outcome.is_error


@pytest.mark.parametrize(
    ("tool", "name"), [("progress", "progress"), ("weather/Zürich", "weather_Zurich")]
)
async def test_progress_is_passed_on_but_not_all_of_it(
    server: Server, tool: str, name: str
) -> None:
    definition = definition_of(server.name, name).model_copy(update={"name_on_server": tool})
    heard: list[ToolProgress] = []
    execution = an_execution(report=heard.append)

    await server.scene.calls.run(definition, {}, execution)

    assert len(heard) < 50
    for progress in heard:
        assert progress.total == 50
        assert (progress.message or "").startswith("step")


async def test_changed_tools_are_listed_again_over_the_same_connection(server: Server) -> None:
    async def listed() -> set[str]:
        rows = await server.scene.stack.inspection.rows(
            "SELECT name FROM mcp_tools WHERE server = $1", server.name
        )
        return {row["name"] for row in rows}

    await server.call("change")
    await eventually(listed, lambda names: "added" in names)

    assert not (await server.call("added")).is_error


async def test_the_servers_annotations_decide_what_is_retried(server: Server) -> None:
    await server.scene.refresh.refresh(await server.scene.reference(server.name))

    rows = await server.scene.stack.inspection.rows(
        "SELECT name, retry_class FROM mcp_tools WHERE server = $1", server.name
    )
    classes = {row["name"]: row["retry_class"] for row in rows}
    assert classes["echo"] == classes["read"] == RetryClass.IDEMPOTENT
    assert classes["change"] == RetryClass.NEVER
