"""Measures what open streams cost the API process."""

import asyncio
import time
from collections.abc import Sequence
from urllib.parse import urlsplit
from uuid import uuid4

import psutil

from tests.load.cpu import CpuTimes
from tests.load.report import Line, Report
from tests.load.samples import Request
from tests.load.stage import Chat, Stage

_TURNS = 20
_WARM_UP = 100


async def measure_streams(stage: Stage, report: Report, *, count: int, watch_s: float) -> None:
    """Hold turns open, follow them over many streams, and look at the API process.

    `watch_s` is how long CPU is counted while the streams are silent but for keep-alives.
    """
    await _follow(stage, _WARM_UP, watch_s=0)
    api = psutil.Process(stage.stack.pid("api"))
    before = api.memory_info().rss
    rss, connections, used, last_s = await _follow(stage, count, watch_s=watch_s)
    shape = stage.shape
    report.add(
        Line(
            name=f"memory of each of {count} open streams",
            shape=shape,
            value=(rss - before) / count / 1000,
            unit="kB",
            target=50,
        ),
        Line(
            name="CPU of each open, silent stream",
            shape=shape,
            value=used.by_name["api"] / watch_s / count * 1000,
            unit="µs/s",
        ),
        Line(
            name=f"Redis connections of the API, {count} streams",
            shape=shape,
            value=connections,
            unit="",
        ),
        Line(name=f"last of {count} streams ended after", shape=shape, value=1000 * last_s),
    )
    busy = ", ".join(
        f"{name} {ms / watch_s / 10:.1f} %" for name, ms in used.by_name.items() if ms > 1
    )
    report.note(f"CPU of the processes with {count} silent streams open: {busy}.")


async def _follow(stage: Stage, count: int, *, watch_s: float) -> tuple[int, int, CpuTimes, float]:
    """Return the API's memory and Redis connections, the CPU used, and the time to the end."""
    gate = uuid4().hex
    await stage.script(text="Held here.", hold=gate, hold_after=1, repeat=_TURNS)
    turns, chats = await _hold_turns(stage)
    followers = [
        Request(stage.api_port, f"/api/v1/turns/{turn}/events", token=chat.token)
        for turn, chat in zip(turns, chats, strict=True)
        for _ in range(count // _TURNS)
    ]
    await stage.client.open(followers)
    api = psutil.Process(stage.stack.pid("api"))
    before = stage.cpu()
    await asyncio.sleep(watch_s)
    used = stage.cpu().since(before)
    rss, connections = api.memory_info().rss, _connections(stage, api)
    released = time.perf_counter()
    await stage.release(gate)
    ended = await stage.client.wait()
    return rss, connections, used, max(sample.ended for sample in ended) - released


async def _hold_turns(stage: Stage) -> tuple[Sequence[str], Sequence[Chat]]:
    """Begin turns whose answers wait at the gate; return their ids and their chats."""
    chats = await stage.make_chats(_TURNS)
    requests = [stage.message(chat, "Hold on.") for chat in chats]
    opened = await stage.client.open(requests)
    return [sample.turn_id for sample in opened], chats


def _connections(stage: Stage, api: psutil.Process) -> int:
    redis = urlsplit(stage.stack.addresses.redis).port
    connections = api.net_connections("tcp")
    # An address is an empty tuple where a socket is not connected.
    return sum(int(made.raddr[-1:] == (redis,)) for made in connections)
