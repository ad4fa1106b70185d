"""Owns a process that speaks MCP over its standard streams: started, bounded, ended for certain.

The SDK's own transport inherits more of our environment, reads lines of any length and logs what
it can't parse; what a server says is not for our memory or logs to hold without bounds.
"""

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process, SubprocessStreamProtocol
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client._transport import TransportStreams
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from services.mcp.errors import McpServerError

MAX_BYTES: Final = 16 * 1024 * 1024
"""What a server may write while its tools are listed."""

_MAX_LINE_BYTES: Final = 8 * 1024 * 1024
_MAX_LINES: Final = 20_000
_MAX_STRAY_LINES: Final = 1_000
_GRACE_S: Final = 1.0
_REAP_S: Final = 2.0
_FOLDER: Final = "/"
_PATH: Final = "/usr/local/bin:/usr/bin:/bin"


@dataclass(slots=True)
class StdioServer:
    """A server to start; `problem` says why its streams ended before they were closed."""

    command: str
    args: Sequence[str]
    env: Mapping[str, str]
    problem: str | None = None
    _stray_lines: int = field(default=0, init=False)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[TransportStreams]:
        """Run the process while the block runs, and kill all that it started at the end.

        Errors: McpServerError where it can't be started.
        """
        transport, process = await self._start()
        try:
            to_us, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
            outgoing, to_server = anyio.create_memory_object_stream[SessionMessage](0)
            reading = asyncio.create_task(self._read(process, to_us))
            writing = asyncio.create_task(_write(process, to_server))
            try:
                yield incoming, outgoing
            finally:
                for task in (reading, writing):
                    task.cancel()
                await asyncio.gather(reading, writing, return_exceptions=True)
                for stream in (to_us, incoming, outgoing, to_server):
                    stream.close()
        finally:
            await _end(process)
            transport.close()

    async def _start(self) -> tuple[asyncio.SubprocessTransport, Process]:
        loop = asyncio.get_running_loop()
        try:
            transport, protocol = await loop.subprocess_exec(
                lambda: SubprocessStreamProtocol(limit=_MAX_LINE_BYTES, loop=loop),
                self.command,
                *self.args,
                env=_environment(self.env),
                cwd=_FOLDER,
                stdin=PIPE,
                stdout=PIPE,
                # It may repeat secrets, and nobody reads it.
                stderr=DEVNULL,
                # A group of its own, so that what it starts can be ended with it.
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            raise McpServerError(
                f"The command can't be run: {reason or 'it is not valid'}."
            ) from error
        return transport, Process(transport, protocol, loop)

    async def _read(
        self, process: Process, to_us: MemoryObjectSendStream[SessionMessage | Exception]
    ) -> None:
        """Hand on what the server writes; closing the stream tells the session of the end."""
        with to_us:
            self.problem = await self._read_all(process, to_us)

    async def _read_all(
        self, process: Process, to_us: MemoryObjectSendStream[SessionMessage | Exception]
    ) -> str:
        stdout = process.stdout
        if stdout is None:  # pragma: no cover -- it is a pipe
            raise RuntimeError("the process has no standard output")
        read_bytes = 0
        for lines in range(_MAX_LINES):
            try:
                line = await stdout.readline()
            except ValueError:
                return f"It wrote a line of more than {_MAX_LINE_BYTES:,} bytes."
            read_bytes += len(line)
            if not line:
                return await _why_ended(process)
            if read_bytes > MAX_BYTES:
                return f"It wrote more than {MAX_BYTES:,} bytes."
            if lines % 100 == 0:
                # Lines that are there already are read without a pause for anybody else.
                await asyncio.sleep(0)
            message = self._message_in(line)
            if message is not None:
                await to_us.send(message)
            elif self._stray_lines > _MAX_STRAY_LINES:
                return "It writes what is no message of MCP to its standard output."
        return f"It wrote more than {_MAX_LINES:,} lines."

    def _message_in(self, line: bytes) -> SessionMessage | None:
        try:
            return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
        except ValueError:
            # Servers print a greeting now and then; it is no reason to do without them.
            self._stray_lines += 1
            return None

    @property
    def has_strayed(self) -> bool:
        """Whether it wrote something that is no message of MCP."""
        return self._stray_lines > 0


async def _write(process: Process, to_server: MemoryObjectReceiveStream[SessionMessage]) -> None:
    stdin = process.stdin
    if stdin is None:  # pragma: no cover -- it is a pipe
        raise RuntimeError("the process has no standard input")
    async with to_server:
        async for message in to_server:
            text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
            stdin.write(text.encode() + b"\n")
            with suppress(ConnectionError):  # the end of its output says that it has ended
                await stdin.drain()


async def _why_ended(process: Process) -> str:
    with suppress(TimeoutError):
        async with asyncio.timeout(_GRACE_S):
            status = await process.wait()
            return f"It ended by itself, with status {status}."
    return "It closed its standard output."


async def _end(process: Process) -> None:
    """End the process and all of its group: by the end of its input, a signal, a kill."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        if not await _is_over(process, within_s=_GRACE_S):
            _signal_group(process, signal.SIGTERM)
            await _is_over(process, within_s=_GRACE_S)
    finally:
        # What it started may still be there when it is not.
        _signal_group(process, signal.SIGKILL)
    await _is_over(process, within_s=_REAP_S)


async def _is_over(process: Process, *, within_s: float) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await process.wait()
    return process.returncode is not None


def _signal_group(process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    """Return the server's own variables with what programs can't do without: no secret of ours."""
    found = {"PATH": os.environ.get("PATH", _PATH), "HOME": os.environ.get("HOME", _FOLDER)}
    return {**found, "LANG": "C.UTF-8", **own}
