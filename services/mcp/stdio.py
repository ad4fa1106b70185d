"""MCP servers as child processes, over stdin and stdout: started, limited, and always ended.

The SDK's own transport passes on more of our environment, reads lines of any length and logs what
it can't parse, so that a server could fill our memory and logs.
"""

import asyncio
import os
import resource
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process, SubprocessStreamProtocol
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

import anyio
import psutil
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp_types import jsonrpc_message_adapter

from services.mcp.addresses import DEFAULT_MEMORY_BYTES
from services.mcp.errors import McpServerError
from services.mcp.limits import MAX_ANSWER_BYTES, Line, Traffic, bounded_lines
from services.mcp.sdk import SessionMessage, TransportStreams

_BUFFER: Final = 64 * 1024
_GRACE_S: Final = 1.0
_REAP_S: Final = 2.0
_WRITE_S: Final = 20.0
_DIRECTORY: Final = "/"
_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_CHECK_MEMORY_EVERY_S: Final = 2.0
# Address space is not limited: the runtimes of JavaScript and Go reserve far more than they use.
_LIMITS: Final = (
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_NOFILE, 4096),
    (resource.RLIMIT_FSIZE, 1024 * 1024 * 1024),
)

_Incoming: TypeAlias = MemoryObjectSendStream[SessionMessage | Exception]


@dataclass(slots=True)
class StdioServer:
    """A server to start; `problem` is why its streams ended before they were closed."""

    command: str
    args: Sequence[str]
    env: Mapping[str, str]
    home: Path | None = None
    memory_bytes: int = DEFAULT_MEMORY_BYTES
    problem: str | None = None
    _traffic: Traffic = field(default_factory=Traffic, init=False)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[TransportStreams]:
        """Run the process while the block runs; then end it, with all that it started.

        Errors: McpServerError if it can't be started.
        """
        transport, process = await self._start()
        try:
            _set_limits(process.pid)
            to_us, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
            outgoing, to_server = anyio.create_memory_object_stream[SessionMessage](0)
            exchanging = asyncio.create_task(self._exchange(process, to_us, to_server))
            try:
                yield incoming, outgoing
            finally:
                exchanging.cancel()
                await asyncio.gather(exchanging, return_exceptions=True)
                for stream in (to_us, incoming, outgoing, to_server):
                    stream.close()
        finally:
            await _end(process)
            transport.close()

    async def _start(self) -> tuple[asyncio.SubprocessTransport, Process]:
        loop = asyncio.get_running_loop()
        directory = str(self.home or _DIRECTORY)
        try:
            transport, protocol = await loop.subprocess_exec(
                lambda: SubprocessStreamProtocol(limit=_BUFFER, loop=loop),
                self.command,
                *self.args,
                env=_environment(self.env, directory),
                cwd=directory,
                stdin=PIPE,
                stdout=PIPE,
                # It may contain secrets, and is not read.
                stderr=DEVNULL,
                # A separate process group, so that what it starts can be ended with it.
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            raise McpServerError(
                f"The command failed to start: {reason or 'invalid command'}."
            ) from error
        return transport, Process(transport, protocol, loop)

    async def _exchange(
        self,
        process: Process,
        to_us: _Incoming,
        to_server: MemoryObjectReceiveStream[SessionMessage],
    ) -> None:
        """Pass messages both ways until one way ends; closing `to_us` ends the session."""
        ways = (
            asyncio.create_task(self._read(process, to_us)),
            asyncio.create_task(self._write(process, to_server)),
            asyncio.create_task(self._watch_memory(process)),
        )
        with to_us:
            try:
                ended, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                self.problem = await _reason(ended, process)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)

    async def _read(self, process: Process, to_us: _Incoming) -> None:
        stdout = process.stdout
        if stdout is None:  # pragma: no cover -- it is a pipe
            raise RuntimeError("the process has no standard output")
        async for piece in bounded_lines(stdout, max_bytes=MAX_ANSWER_BYTES):
            if not isinstance(piece, Line):
                self._traffic.count_received(piece.size)
                # Buffered lines are read without a pause in which other tasks could run.
                await asyncio.sleep(0)
                continue
            self._traffic.count_received(piece.size, messages=1)
            message = self._message_in(piece)
            if message is not None:
                await to_us.send(message)

    def _message_in(self, line: Line) -> SessionMessage | None:
        if line.is_too_long:
            return SessionMessage(self._traffic.oversized_answer(line))
        try:
            message = jsonrpc_message_adapter.validate_json(line.text, by_name=False)
        except ValueError:
            replacement = self._traffic.unreadable_answer(line)
            return None if replacement is None else SessionMessage(replacement)
        return SessionMessage(message) if self._traffic.is_expected(message) else None

    async def _write(
        self, process: Process, to_server: MemoryObjectReceiveStream[SessionMessage]
    ) -> None:
        stdin = process.stdin
        if stdin is None:  # pragma: no cover -- it is a pipe
            raise RuntimeError("the process has no standard input")
        async for message in to_server:
            self._traffic.note_sent(message.message)
            text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
            stdin.write(text.encode() + b"\n")
            try:
                with suppress(ConnectionError):  # the end of its output says that it has ended
                    async with asyncio.timeout(_WRITE_S):
                        await stdin.drain()
            except TimeoutError:
                raise McpServerError("The server does not read its stdin.") from None
        # The session has ended; its owner closes the rest.
        await asyncio.Event().wait()

    async def _watch_memory(self, process: Process) -> None:
        while _resident_bytes(process.pid) <= self.memory_bytes:  # noqa: ASYNC110 -- no event
            await asyncio.sleep(_CHECK_MEMORY_EVERY_S)
        raise McpServerError(
            f"The server was killed: it used over {self.memory_bytes // 2**20:,} MiB of memory."
        )

    @property
    def has_stray_lines(self) -> bool:
        """Whether it wrote lines that are not MCP messages."""
        return self._traffic.has_stray_lines


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
            return f"The process exited with status {status}."
    return "The process closed its stdout."


async def _end(process: Process) -> None:
    """End the process and its descendants: by the end of its input, SIGTERM, then SIGKILL."""
    members = _descendants(process.pid) if process.returncode is None else []
    if process.stdin is not None:
        process.stdin.close()
    try:
        if not await _has_ended(process, within_s=_GRACE_S):
            _signal_group(process, signal.SIGTERM)
            await _has_ended(process, within_s=_GRACE_S)
    finally:
        # What it started may outlive it.
        _signal_group(process, signal.SIGKILL)
        for member in members:
            with suppress(psutil.Error):
                member.kill()
    await _has_ended(process, within_s=_REAP_S)


async def _has_ended(process: Process, *, within_s: float) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await process.wait()
    return process.returncode is not None


def _signal_group(process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _environment(own: Mapping[str, str], home: str) -> dict[str, str]:
    """Return the configured variables, with what programs need: nothing else of ours."""
    return {"PATH": os.environ.get("PATH", _PATH), "HOME": home, "LANG": "C.UTF-8", **own}


def _set_limits(pid: int) -> None:
    """Limit a process that was just started; what it starts from now on inherits that."""
    if not hasattr(resource, "prlimit"):  # pragma: no cover -- only Linux has it
        return
    for kind, wanted in _LIMITS:
        # It may have ended, or have changed its user.
        with suppress(OSError, ValueError):
            _, hard = resource.prlimit(pid, kind)
            limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.prlimit(pid, kind, (limit, limit))


def _resident_bytes(group: int) -> int:
    """Return the memory of a process group; memory that processes share counts for each."""
    total = 0
    for member in _members(group):
        with suppress(psutil.Error):
            total += member.memory_info().rss
    return total


def _members(group: int) -> Iterator[psutil.Process]:
    for candidate in psutil.pids():
        with suppress(psutil.Error, OSError):
            if os.getpgid(candidate) == group:
                yield psutil.Process(candidate)


def _descendants(pid: int) -> list[psutil.Process]:
    """Return what a process has started, including processes that have left its group."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []
