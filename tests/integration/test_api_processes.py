"""What keeps the API's processes running: those that can not even start end it with one error."""

import asyncio
import signal
import socket
import sys

import pytest

from workers import api_processes
from workers.api_processes import ApiProcessFailedError, serve_in_processes


async def test_processes_that_can_not_start_are_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = (sys.executable, "-c", "raise SystemExit(1)")
    monkeypatch.setattr(api_processes, "_COMMAND", failing)

    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            pytest.raises(ApiProcessFailedError, match="status 1"),
        ):
            await serve_in_processes(listener, 2)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().remove_signal_handler(number)
