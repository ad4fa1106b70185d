"""An MCP server over stdio that forks: into the background, out of its session, or without end.

It takes a mode, and acts on the first call of its tool. Standard library only, as `mcp_by_hand.py`.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

INFO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "forking", "version": "1"},
}


HOARDED = bytearray()


def say(request: Any, result: object) -> None:  # noqa: ANN401 -- an id
    """Answer a request."""
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": request, "result": result}) + "\n")
    sys.stdout.flush()


def sleep_stubbornly() -> NoReturn:
    """Sleep through what asks it to end, and write down who does."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    Path(f"orphan-{os.getpid()}").touch()
    time.sleep(600)
    os._exit(0)


def forked_twice(act: Callable[[], object], *, holds_streams: bool = False) -> None:
    """Act in an orphan that is in a session of its own."""
    if os.fork():
        os.wait()
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    if not holds_streams:
        for stream in (0, 1, 2):
            os.dup2(os.open(os.devnull, os.O_RDWR), stream)
    act()


def hoard() -> None:
    """Use 300 MB of memory."""
    HOARDED.extend(os.urandom(1024) * 300_000)
    sleep_stubbornly()


def multiply() -> None:
    """Become many, each in a session of its own."""
    for _ in range(60):
        if not os.fork():
            os.setsid()
            sleep_stubbornly()
    sleep_stubbornly()


def run_away() -> NoReturn:
    """Be another process all the time, for a minute."""
    Path(f"orphan-{os.getpid()}").touch()
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if os.fork():
            os._exit(0)
    os._exit(0)


def _die() -> None:
    forked_twice(sleep_stubbornly, holds_streams=True)
    os._exit(5)


def _rebel() -> None:
    supervisor = os.getppid()

    def strike() -> None:
        # First of all: it may be ended in the same moment.
        Path(f"orphan-{os.getpid()}").touch()
        os.kill(supervisor, signal.SIGKILL)
        sleep_stubbornly()

    forked_twice(strike)


MODES: dict[str, Callable[[], object]] = {
    "pid": lambda: None,
    "daemon": lambda: None,
    "orphan": lambda: forked_twice(sleep_stubbornly),
    "hoard": lambda: forked_twice(hoard),
    "multiply": lambda: forked_twice(multiply),
    "run_away": lambda: forked_twice(run_away),
    "die": _die,
    "rebel": _rebel,
}


def main(mode: str) -> None:
    """Serve until the input ends."""
    if mode == "daemon":
        if os.fork():
            os._exit(0)
        os.setsid()
        if os.fork():
            os._exit(0)
    for line in sys.stdin:
        message = json.loads(line)
        match message.get("method"):
            case "initialize":
                say(message["id"], INFO)
            case "tools/list":
                say(message["id"], {"tools": [{"name": "fork", "inputSchema": {"type": "object"}}]})
            case "tools/call":
                MODES[mode]()
                text = str(os.getpid())
                say(message["id"], {"content": [{"type": "text", "text": text}]})


if __name__ == "__main__":
    main(*sys.argv[1:])
