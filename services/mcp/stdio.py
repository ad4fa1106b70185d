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
from pathlib import Path
from typing import Final, TypeAlias

import anyio
import psutil
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client._transport import TransportStreams
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from services.mcp.addresses import DEFAULT_MEMORY_BYTES
from services.mcp.errors import McpServerError
from services.mcp.exchange import MAX_ANSWER_BYTES, Exchange
from services.mcp.lines import Line, bounded_lines
from services.mcp.process_limits import descendants, outgrowing, restrain

_BUFFER: Final = 64 * 1024
_GRACE_S: Final = 1.0
_REAP_S: Final = 2.0
_WRITE_S: Final = 20.0
_FOLDER: Final = "/"
_PATH: Final = "/usr/local/bin:/usr/bin:/bin"

_ToUs: TypeAlias = MemoryObjectSendStream[SessionMessage | Exception]


@dataclass(slots=True)
class StdioServer:
    """A server to start; `problem` says why its streams ended before they were closed."""

    command: str
    args: Sequence[str]
    env: Mapping[str, str]
    home: Path | None = None
    memory_bytes: int = DEFAULT_MEMORY_BYTES
    problem: str | None = None
    _exchange: Exchange = field(default_factory=Exchange, init=False)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[TransportStreams]:
        """Run the process while the block runs, and kill all that it started at the end.

        Errors: McpServerError where it can't be started.
        """
        transport, process = await self._start()
        try:
            restrain(process.pid)
            to_us, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
            outgoing, to_server = anyio.create_memory_object_stream[SessionMessage](0)
            speaking = asyncio.create_task(self._speak(process, to_us, to_server))
            try:
                yield incoming, outgoing
            finally:
                speaking.cancel()
                await asyncio.gather(speaking, return_exceptions=True)
                for stream in (to_us, incoming, outgoing, to_server):
                    stream.close()
        finally:
            await _end(process)
            transport.close()

    async def _start(self) -> tuple[asyncio.SubprocessTransport, Process]:
        loop = asyncio.get_running_loop()
        folder = str(self.home or _FOLDER)
        try:
            transport, protocol = await loop.subprocess_exec(
                lambda: SubprocessStreamProtocol(limit=_BUFFER, loop=loop),
                self.command,
                *self.args,
                env=_environment(self.env, folder),
                cwd=folder,
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

    async def _speak(
        self, process: Process, to_us: _ToUs, to_server: MemoryObjectReceiveStream[SessionMessage]
    ) -> None:
        """Carry messages both ways until one way ends; closing `to_us` tells the session."""
        ways = (
            asyncio.create_task(self._read(process, to_us)),
            asyncio.create_task(self._write(process, to_server)),
            asyncio.create_task(self._watch(process)),
        )
        with to_us:
            try:
                ended, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                self.problem = await _reason(ended, process)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)

    async def _read(self, process: Process, to_us: _ToUs) -> None:
        stdout = process.stdout
        if stdout is None:  # pragma: no cover -- it is a pipe
            raise RuntimeError("the process has no standard output")
        async for piece in bounded_lines(stdout, longest=MAX_ANSWER_BYTES):
            if not isinstance(piece, Line):
                self._exchange.count(piece.size)
                # Lines that are there already are read without a pause for anybody else.
                await asyncio.sleep(0)
                continue
            self._exchange.count(piece.size, messages=1)
            message = self._message_in(piece)
            if message is not None:
                await to_us.send(message)

    def _message_in(self, line: Line) -> SessionMessage | None:
        if line.is_too_long:
            return SessionMessage(self._exchange.refuse(line))
        try:
            message = jsonrpc_message_adapter.validate_json(line.text, by_name=False)
        except ValueError:
            unread = self._exchange.unread(line)
            return None if unread is None else SessionMessage(unread)
        return SessionMessage(message) if self._exchange.hear(message) else None

    async def _write(
        self, process: Process, to_server: MemoryObjectReceiveStream[SessionMessage]
    ) -> None:
        stdin = process.stdin
        if stdin is None:  # pragma: no cover -- it is a pipe
            raise RuntimeError("the process has no standard input")
        async for message in to_server:
            self._exchange.ask(message.message)
            text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
            stdin.write(text.encode() + b"\n")
            try:
                with suppress(ConnectionError):  # the end of its output says that it has ended
                    async with asyncio.timeout(_WRITE_S):
                        await stdin.drain()
            except TimeoutError:
                raise McpServerError("It does not read its standard input.") from None
        # The session has ended; who opened it closes the rest.
        await asyncio.Event().wait()

    async def _watch(self, process: Process) -> None:
        await outgrowing(process.pid, self.memory_bytes)
        raise McpServerError(
            f"It was ended because it held more than {self.memory_bytes // 2**20:,} MiB of memory."
        )

    @property
    def has_strayed(self) -> bool:
        """Whether it wrote something that is no message of MCP."""
        return self._exchange.has_strayed


async def _reason(ended: set[asyncio.Task[None]], process: Process) -> str:
    for way in ended:
        error = way.exception()
        if isinstance(error, McpServerError):
            return str(error)
        if error is not None:
            raise error
    with suppress(TimeoutError):
        async with asyncio.timeout(_GRACE_S):
            status = await process.wait()
            return f"It ended by itself, with status {status}."
    return "It closed its standard output."


async def _end(process: Process) -> None:
    """End the process and all that came of it: by the end of its input, a signal, a kill."""
    members = descendants(process.pid) if process.returncode is None else []
    if process.stdin is not None:
        process.stdin.close()
    try:
        if not await _is_over(process, within_s=_GRACE_S):
            _signal_group(process, signal.SIGTERM)
            await _is_over(process, within_s=_GRACE_S)
    finally:
        # What it started may still be there when it is not.
        _signal_group(process, signal.SIGKILL)
        for member in members:
            with suppress(psutil.Error):
                member.kill()
    await _is_over(process, within_s=_REAP_S)


async def _is_over(process: Process, *, within_s: float) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await process.wait()
    return process.returncode is not None


def _signal_group(process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _environment(own: Mapping[str, str], home: str) -> dict[str, str]:
    """Return the server's own variables with what programs can't do without: nothing of ours."""
    found = {"PATH": os.environ.get("PATH", _PATH), "HOME": home, "LANG": "C.UTF-8"}
    return {**found, **own}
