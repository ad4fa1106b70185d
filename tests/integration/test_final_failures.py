"""Servers of tools that no waiting helps: calls end at once, with one error that says why."""

from contextlib import AsyncExitStack
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Final

import pytest

from services.tools.definition import ToolOutcome, ToolUnavailableError
from tests.fakes.raw_server import answered, saying, serving_raw, speaking_plain_text
from tests.fixtures.mcp import McpScene, definition_of, open_scene
from tests.fixtures.stack import Stack
from tests.fixtures.tool_executions import an_execution
from tests.running_everturn.waiting import eventually

NO_USE: Final = "is unavailable, and repeating the call does not help."


async def outcome_of(
    mcp: McpScene, server: str, *, attempt: int = 1
) -> ToolOutcome | ToolUnavailableError:
    execution = replace(an_execution(), attempt=attempt)
    try:
        return await mcp.calls.run(definition_of(server, "it"), {}, execution)
    except ToolUnavailableError as error:
        return error


async def assert_final(mcp: McpScene, server: str, sentence: str) -> None:
    """Assert that calls of two turns end at once, and that the server's problem says why."""
    for _turn in range(2):
        outcome = await outcome_of(mcp, server)
        assert isinstance(outcome, ToolOutcome)
        assert outcome.is_error
        assert sentence in outcome.output
        assert NO_USE in outcome.output
        assert outcome.cost_usd == Decimal(0)

    async def problem() -> str:
        return str((await mcp.row(server))["problem"])

    await eventually(problem, lambda seen: sentence in seen)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 415, 422])
async def test_a_server_that_refuses_is_asked_once(mcp: McpScene, status: int) -> None:
    async with serving_raw(saying(answered(b"no", status=f"{status} No"))) as served:
        await assert_final(mcp, await mcp.http(served.url), f"HTTP status {status}.")

        assert len(served.requests) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 503])
async def test_a_server_that_may_answer_later_is_waited_for(mcp: McpScene, status: int) -> None:
    async with serving_raw(saying(answered(b"no", status=f"{status} No"))) as served:
        server = await mcp.http(served.url)

        assert isinstance(await outcome_of(mcp, server), ToolUnavailableError)


async def test_a_server_that_was_away_may_answer_404_while_it_starts(mcp: McpScene) -> None:
    async with serving_raw(saying(answered(b"no", status="404 Not Found"))) as served:
        server = await mcp.http(served.url)

        assert isinstance(await outcome_of(mcp, server, attempt=2), ToolUnavailableError)
        assert isinstance(await outcome_of(mcp, server), ToolOutcome)


async def test_a_problem_that_changes_is_stored(mcp: McpScene, unused_tcp_port: int) -> None:
    server = await mcp.http(f"http://127.0.0.1:{unused_tcp_port}/mcp")
    assert isinstance(await outcome_of(mcp, server), ToolUnavailableError)

    async def problem() -> str:
        await outcome_of(mcp, server)
        return str((await mcp.row(server))["problem"])

    assert await eventually(problem, lambda seen: seen != "None") == "Connection failed."
    async with serving_raw(saying(answered(b"", status="401 No")), port=unused_tcp_port):
        assert await eventually(problem, lambda seen: "401" in seen)


@pytest.mark.parametrize(
    ("wire", "sentence"),
    [
        (answered(b"<html>", "Content-Type: text/html"), "Unexpected content type"),
        (answered(b"{", "Content-Type: application/json"), "Invalid MCP response."),
        (answered(b"", "Location: /other", status="307 Elsewhere"), "redirect"),
        (answered(b"x", "Content-Encoding: gzip"), "compressed"),
    ],
    ids=["page", "json", "redirect", "gzip"],
)
async def test_what_is_no_mcp_server_is_not_waited_for(
    mcp: McpScene, wire: bytes, sentence: str
) -> None:
    async with serving_raw(saying(wire)) as served:
        await assert_final(mcp, await mcp.http(served.url), sentence)


async def test_a_port_without_tls_is_refused(mcp: McpScene) -> None:
    async with speaking_plain_text() as port:
        server = await mcp.http(f"https://127.0.0.1:{port}/mcp")

        await assert_final(mcp, server, "The port does not use TLS.")


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://127.0.0.1:9/mcp", "The host has a private address."),
        ("http://nowhere.invalid/mcp", "The host does not exist."),
    ],
)
async def test_a_host_that_must_not_or_cannot_be_reached_is_refused(
    stack: Stack, servers_removed: None, tmp_path: Path, *, url: str, sentence: str
) -> None:
    async with AsyncExitStack() as opened:
        mcp = await open_scene(opened, stack, tmp_path, allowed=())

        await assert_final(mcp, await mcp.http(url), sentence)


@pytest.mark.parametrize(
    ("text", "mode", "sentence"),
    [
        (None, 0, "No such file or directory"),
        ("#!/bin/sh\n", 0o600, "Permission denied"),
        ("neither a script nor a program", 0o700, "Exec format error"),
        ("#!/nowhere\n", 0o700, "No such file or directory"),
        ("#!/usr/bin/env nowhere\n", 0o700, "exited with status 127"),
        ("#!/bin/sh\nnowhere\n", 0o700, "exited with status 127"),
    ],
    ids=["missing", "mode", "format", "interpreter", "env", "shell"],
)
async def test_a_command_that_cannot_run_is_not_started_again(
    mcp: McpScene, tmp_path: Path, *, text: str | None, mode: int, sentence: str
) -> None:
    command = tmp_path / "command"
    if text is not None:
        command.write_text(text)
        command.chmod(mode)
    server = await mcp.process("unused")
    await mcp.change(server, command=str(command), args=[])

    await assert_final(mcp, server, sentence)


async def test_a_command_that_crashes_may_work_later(mcp: McpScene) -> None:
    server = await mcp.process("-c", "raise SystemExit(3)")

    assert isinstance(await outcome_of(mcp, server), ToolUnavailableError)
