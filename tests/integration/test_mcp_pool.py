"""MCP servers that crash, hang, flood, lie or vanish harm their own calls, and nothing else."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import psutil
import pytest

from services.mcp.addresses import Timeouts
from services.mcp.pool import PoolTimings
from services.tools.definition import ToolUnavailableError
from services.tools.masks import MASK
from tests.fakes.mcp_server import serving_mcp
from tests.fakes.mcp_tools import NOTED
from tests.fixtures.mcp import OURS, McpScene, open_scene
from tests.fixtures.stack import Stack
from tests.running_everturn.waiting import eventually

BY_HAND = str(Path(__file__).parents[1] / "fakes" / "mcp_by_hand.py")


def status_of(mcp: McpScene, server: str) -> Callable[[], Awaitable[tuple[str, str | None]]]:
    async def look() -> tuple[str, str | None]:
        row = await mcp.row(server)
        return row["status"], row["problem"]

    return look


async def unavailable(mcp: McpScene, server: str, tool: str = "misbehave") -> ToolUnavailableError:
    with pytest.raises(ToolUnavailableError) as raised:
        await mcp.call(server, tool)
    return raised.value


async def pid_of(mcp: McpScene, server: str) -> int:
    return int((await mcp.call(server, "pid")).output)


def is_silent(mcp: McpScene, server: str) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return (mcp.homes / server / "silent").exists()

    return look


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def gone(pid: int) -> None:
    async def look() -> bool:
        return is_running(pid)

    await eventually(look, lambda running: not running, within_s=10)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("twice", "the first"),
        ("unknown", "to somebody"),
        ("no_json", "after all"),
        ("half_a_pair", "cut in half \ufffd"),
    ],
)
async def test_surplus_answers_and_invalid_lines_are_harmless(
    mcp: McpScene, mode: str, expected: str
) -> None:
    server = await mcp.process(BY_HAND, mode)
    pid = await pid_of(mcp, server)

    outcomes = [await mcp.call(server, "misbehave") for _ in range(3)]

    assert [outcome.output for outcome in outcomes] == [expected] * 3
    assert await pid_of(mcp, server) == pid


@pytest.mark.parametrize("mode", ["no_result", "id_last", "deep"])
async def test_an_invalid_answer_fails_only_its_own_call(mcp: McpScene, mode: str) -> None:
    server = await mcp.process(BY_HAND, mode)
    pid = await pid_of(mcp, server)

    outcome = await mcp.call(server, "misbehave")

    assert outcome.is_error
    assert await pid_of(mcp, server) == pid


async def test_a_crash_fails_the_calls_under_way_and_the_next_call_starts_it_again(
    mcp: McpScene,
) -> None:
    server = await mcp.process(BY_HAND, "die")
    before = await pid_of(mcp, server)
    silent = asyncio.create_task(unavailable(mcp, server, "silence"))
    await eventually(is_silent(mcp, server), bool)

    lost = await unavailable(mcp, server)

    assert lost.reached
    assert "The process exited with status 5." in lost.sentence
    assert (await silent).reached
    assert await eventually(status_of(mcp, server), lambda seen: seen[0] == "failing") == (
        "failing",
        "The process exited with status 5.",
    )
    assert await pid_of(mcp, server) != before
    assert await eventually(status_of(mcp, server), lambda seen: seen[0] == "healthy") == (
        "healthy",
        None,
    )


async def test_a_repeatedly_crashing_server_is_not_restarted_at_once(mcp: McpScene) -> None:
    server = await mcp.process(BY_HAND, "die")
    await unavailable(mcp, server)

    second = await unavailable(mcp, server)
    third = await unavailable(mcp, server)

    assert second.reached
    assert not third.reached
    assert third.retry_after is not None


@pytest.mark.parametrize("mode", ["notify", "endless_line"])
async def test_a_flood_ends_the_connection_of_the_server_that_floods(
    mcp: McpScene, mode: str
) -> None:
    flooding, fine = await mcp.process(BY_HAND, mode), await mcp.process(BY_HAND, "pid")
    pid, other = await pid_of(mcp, flooding), await pid_of(mcp, fine)

    lost = await unavailable(mcp, flooding)

    assert "without answering" in lost.sentence
    assert await pid_of(mcp, fine) == other
    await gone(pid)


async def test_two_hundred_calls_of_a_dead_server_connect_once_and_fail_at_once(
    mcp: McpScene, unused_tcp_port: int
) -> None:
    server = await mcp.http(f"http://127.0.0.1:{unused_tcp_port}/mcp")

    lost = await asyncio.gather(*(unavailable(mcp, server) for _ in range(200)))
    later = await unavailable(mcp, server)

    assert {one.reached for one in lost} == {False}
    assert {one.sentence.partition("unavailable. ")[2] for one in [*lost, later]} == {
        "Connection failed."
    }
    assert later.retry_after is not None
    status, _ = await eventually(status_of(mcp, server), lambda seen: seen[0] == "failing")
    assert status == "failing"


async def test_a_server_that_does_not_answer_delays_no_call_of_another(
    stack: Stack, tmp_path: Path
) -> None:
    async with AsyncExitStack() as opened:
        hasty = await open_scene(opened, stack, tmp_path, timeouts=Timeouts(connect_s=3, whole_s=3))
        mute, fine = await hasty.process(BY_HAND, "mute"), await hasty.process(BY_HAND, "pid")
        waiting = asyncio.gather(*(unavailable(hasty, mute) for _ in range(50)))
        await pid_of(hasty, fine)
        assert not waiting.done()

        lost = await waiting

    assert {one.reached for one in lost} == {False}
    assert "Connecting timed out after 3 s." in lost[0].sentence


async def test_a_forgotten_session_is_reopened_without_the_model_noticing(
    mcp: McpScene,
) -> None:
    async with serving_mcp("tools") as served:
        server = await mcp.http(served.url)
        await mcp.call(server, "echo")
        served.forget_sessions()

        outcomes = await asyncio.gather(*(mcp.call(server, "echo") for _ in range(10)))

        sessions = {headers.get("mcp-session-id") for headers in served.headers} - {None}
    assert not any(outcome.is_error for outcome in outcomes)
    assert len(sessions) == 2


async def test_a_server_over_http_that_dies_and_comes_back_is_found_again(
    mcp: McpScene, unused_tcp_port: int
) -> None:
    async with serving_mcp("tools", port=unused_tcp_port) as served:
        server = await mcp.http(served.url)
        await mcp.call(server, "echo")
    lost = await unavailable(mcp, server, "echo")
    assert not lost.reached

    async def called() -> bool:
        try:
            return not (await mcp.call(server, "echo")).is_error
        except ToolUnavailableError:
            return False

    async with serving_mcp("tools", port=unused_tcp_port):
        assert await eventually(called, bool)
    status, _ = await eventually(status_of(mcp, server), lambda seen: seen[0] == "healthy")
    assert status == "healthy"


async def test_abandoned_calls_over_http_leave_no_request_behind(mcp: McpScene) -> None:
    NOTED.clear()
    async with serving_mcp("tools") as served:
        server = await mcp.http(served.url)
        await mcp.call(server, "echo")
        hanging = [asyncio.create_task(mcp.call(server, "hang")) for _ in range(5)]
        await eventually(noted, lambda words: words.count("hanging") == 5)

        for call in hanging:
            call.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)

        await eventually(noted, lambda words: words.count("cancelled") == 5)
        assert not (await mcp.call(server, "echo")).is_error


async def noted() -> list[str]:
    return list(NOTED)


async def test_a_reconfigured_server_is_reconnected(mcp: McpScene) -> None:
    server = await mcp.process(BY_HAND, "pid")
    before = await pid_of(mcp, server)

    await mcp.change(server, args=[BY_HAND, "twice"])

    assert (await mcp.call(server, "misbehave")).output == "the first"
    await gone(before)


async def test_a_disabled_server_is_not_called_and_stops(mcp: McpScene) -> None:
    server = await mcp.process(BY_HAND, "pid")
    before = await pid_of(mcp, server)

    await mcp.change(server, enabled=False)
    refused = await mcp.call(server, "pid")

    assert refused.is_error
    assert "disabled" in refused.output
    await gone(before)


@pytest.fixture
async def impatient(stack: Stack, tmp_path: Path) -> AsyncIterator[McpScene]:
    """A pool that closes idle connections at once."""
    async with AsyncExitStack() as opened:
        timings = PoolTimings(idle_s=0.2, check_every_s=0.05)
        yield await open_scene(opened, stack, tmp_path, timings=timings, memory_bytes=200 * 2**20)


async def test_an_idle_server_stops_and_is_restarted_on_use(impatient: McpScene) -> None:
    server = await impatient.process(BY_HAND, "pid")
    before = await pid_of(impatient, server)

    await gone(before)

    assert await pid_of(impatient, server) != before
    assert (await impatient.row(server))["status"] == "unknown"


async def test_a_server_that_uses_too_much_memory_is_ended_with_a_reason(
    impatient: McpScene,
) -> None:
    server = await impatient.process()

    with pytest.raises(ToolUnavailableError) as raised:
        await impatient.call(server, "hoard", megabytes=300)

    assert "over 200 MiB of memory" in raised.value.sentence


async def test_processes_live_in_private_folders_with_an_environment_of_their_own(
    mcp: McpScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERTURN_AUTH_SECRET", "ours")
    server = await mcp.process(BY_HAND, "where", TOKEN="theirs")

    found = json.loads((await mcp.call(server, "where")).output)

    home = mcp.homes / server
    assert found["cwd"] == found["env"]["HOME"] == str(home)
    assert home.stat().st_mode & 0o777 == 0o700
    assert set(found["env"]) - {"LC_CTYPE"} == {*OURS, "TOKEN"}
    assert found["env"]["TOKEN"] == MASK


async def test_a_closed_pool_leaves_no_process_behind(stack: Stack, tmp_path: Path) -> None:
    async with AsyncExitStack() as opened:
        scene = await open_scene(opened, stack, tmp_path)
        servers = [await scene.process(BY_HAND, "pid") for _ in range(3)]
        pids = [await pid_of(scene, server) for server in servers]
        silent = [asyncio.create_task(unavailable(scene, name, "silence")) for name in servers]
        for name in servers:
            await eventually(is_silent(scene, name), bool)

    assert [is_running(pid) for pid in pids] == [False] * 3
    assert [lost.reached for lost in await asyncio.gather(*silent)] == [True] * 3


async def test_an_invalid_tool_definition_does_not_hide_the_servers_other_tools(
    mcp: McpScene,
) -> None:
    server = await mcp.process(BY_HAND, "pid")

    outcome = await mcp.refresh.refresh(await mcp.reference(server))

    row = await mcp.row(server)
    assert (outcome.tool_count, row["status"]) == (2, "healthy")
    assert all(f"`{name}`" in row["problem"] for name in ("odd", "bare", "loud"))
