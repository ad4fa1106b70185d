"""MCP servers as child processes, over stdin and stdout: each in a cage, and always ended.

The SDK's own transport passes on more of our environment, reads lines of any length and logs what
it can't parse, so that a server could fill our memory and logs.
"""

import asyncio
import errno
import os
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process, SubprocessStreamProtocol
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias
from uuid import uuid4

import anyio
import psutil
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp_types import jsonrpc_message_adapter

from services.mcp import cage
from services.mcp.addresses import DEFAULT_MEMORY_BYTES, DEFAULT_PROCESSES
from services.mcp.bodies import repaired
from services.mcp.cage import Order
from services.mcp.errors import McpServerError, Outlook
from services.mcp.limits import MAX_ANSWER_BYTES, Line, Traffic, bounded_lines
from services.mcp.sdk import SessionMessage, TransportStreams

_BUFFER: Final = 64 * 1024
_GRACE_S: Final = 1.0
_WRITE_S: Final = 20.0
# More than a cage needs to end what resists.
_END_S: Final = 7.0
_PASSES: Final = 5
_SCARCE: Final = frozenset(
    {errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.ETXTBSY}
)
"""Why a command can't be started that can be in a moment: by the system's state, not its own."""
_NO_COMMAND: Final = frozenset({"126", "127"})
"""What `env` and shells exit with if what they are to run isn't there, or can't be run."""
_LIBRARIES: Final = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_DIRECTORY: Final = "/"
_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_MARK: Final = "EVERTURN_MCP_RUN"
"""In the environment of a server and of what it starts: other for each run."""

_Incoming: TypeAlias = MemoryObjectSendStream[SessionMessage | Exception]


@dataclass(slots=True)
class StdioServer:
    """A server to start; `problem` is why its streams ended before they were closed.

    `outlook` is what that says of the next start.
    """

    command: str
    args: Sequence[str]
    env: Mapping[str, str]
    home: Path | None = None
    memory_bytes: int = DEFAULT_MEMORY_BYTES
    processes: int = DEFAULT_PROCESSES
    problem: str | None = None
    outlook: Outlook = "away"
    _traffic: Traffic = field(default_factory=Traffic, init=False)
    _has_spoken: bool = field(default=False, init=False)
    _explanation: str | None = field(default=None, init=False)
    _explained: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[TransportStreams]:
        """Run the process while the block runs; then end it, with all that it started.

        Errors: McpServerError if it can't be started.
        """
        async with _cage_around(self._order()) as caged:
            to_us, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
            outgoing, to_server = anyio.create_memory_object_stream[SessionMessage](0)
            exchanging = asyncio.create_task(self._exchange(caged, to_us, to_server))
            try:
                yield incoming, outgoing
            finally:
                exchanging.cancel()
                await asyncio.gather(exchanging, return_exceptions=True)
                for stream in (to_us, incoming, outgoing, to_server):
                    stream.close()

    def _order(self) -> Order:
        directory = str(self.home or _DIRECTORY)
        # The configured variables, with what programs need: nothing else of ours.
        path = os.environ.get("PATH", _PATH)
        env = {"PATH": path, "HOME": directory, "LANG": "C.UTF-8", **self.env}
        return Order(self.command, self.args, env, directory, self.memory_bytes, self.processes)

    async def _exchange(
        self,
        caged: "_Caged",
        to_us: _Incoming,
        to_server: MemoryObjectReceiveStream[SessionMessage],
    ) -> None:
        """Pass messages both ways until one way ends; closing `to_us` ends the session."""
        ways = (
            asyncio.create_task(self._read(caged.stdout, to_us)),
            asyncio.create_task(self._write(caged.stdin, to_server)),
            asyncio.create_task(self._follow(caged)),
        )
        with to_us:
            try:
                ended, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                self.problem = await self._reason(ended)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)

    async def _follow(self, caged: "_Caged") -> None:
        """Take what the cage reports, until it gives a reason to end."""
        last = "The process that supervises the server was killed."
        while report := await caged.report():
            kind, _, detail = report.partition(" ")
            if kind == "killed":
                self._explain(self._excess(detail))
                return
            last = f"The process exited with status {detail}."
            if detail in _NO_COMMAND:
                self.outlook = "refused"
            # One that forks to serve in the background ends well before it has said anything.
            if detail != "0" or self._has_spoken:
                self._explain(last)
                # What it has written may still have to be read.
                await asyncio.sleep(_GRACE_S)
                return
        self._explain(last)

    def _explain(self, sentence: str) -> None:
        self._explanation = sentence
        self._explained.set()

    def _excess(self, what: str) -> str:
        if what == "processes":
            return f"The server was killed: it ran more than {self.processes:,} processes."
        return f"The server was killed: it used over {self.memory_bytes // 2**20:,} MiB of memory."

    async def _reason(self, ended: set[asyncio.Task[None]]) -> str:
        for way in ended:
            error = way.exception()
            if isinstance(error, McpServerError):
                self.outlook = error.outlook
                return str(error)
            if error is not None:
                raise error
        with suppress(TimeoutError):
            async with asyncio.timeout(_GRACE_S):
                await self._explained.wait()
        return self._explanation or "The process closed its stdout."

    async def _read(self, stdout: StreamReader, to_us: _Incoming) -> None:
        async for piece in bounded_lines(stdout, max_bytes=MAX_ANSWER_BYTES):
            if not isinstance(piece, Line):
                self._traffic.count_received(piece.size)
                # Buffered lines are read without a pause in which other tasks could run.
                await asyncio.sleep(0)
                continue
            self._has_spoken = True
            self._traffic.count_received(piece.size, messages=1)
            message = self._message_in(piece)
            if message is not None:
                await to_us.send(message)

    def _message_in(self, line: Line) -> SessionMessage | None:
        if line.is_too_long:
            return SessionMessage(self._traffic.oversized_answer(line))
        try:
            message = jsonrpc_message_adapter.validate_json(repaired(line.text), by_name=False)
        except ValueError:
            replacement = self._traffic.unreadable_answer(line)
            return None if replacement is None else SessionMessage(replacement)
        return SessionMessage(message) if self._traffic.is_expected(message) else None

    async def _write(
        self, stdin: StreamWriter, to_server: MemoryObjectReceiveStream[SessionMessage]
    ) -> None:
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

    @property
    def has_stray_lines(self) -> bool:
        """Whether it wrote lines that are not MCP messages."""
        return self._traffic.has_stray_lines


class _Protocol(SubprocessStreamProtocol):
    """Says when the process has ended, though others may still hold its streams."""

    def __init__(self) -> None:
        super().__init__(limit=_BUFFER, loop=asyncio.get_running_loop())
        self.exited = asyncio.Event()

    def process_exited(self) -> None:
        super().process_exited()
        self.exited.set()


@dataclass(frozen=True, slots=True)
class _Caged:
    """A server in its cage: its streams, and how its cage is spoken with."""

    stdin: StreamWriter
    stdout: StreamReader
    reports: StreamReader
    control: asyncio.WriteTransport
    transport: asyncio.SubprocessTransport
    exited: asyncio.Event

    async def report(self) -> str:
        """Return the next report of the cage; empty once that has ended."""
        return (await self.reports.readline()).decode(errors="replace").strip()

    async def end(self, mark: str) -> None:
        """Let the cage end the server with all that it started."""
        self.stdin.close()
        self.control.close()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_END_S):
                    await self.exited.wait()
        finally:
            if self.transport.get_returncode() != 0:
                # It was killed, or can't be sure that it has found all.
                with suppress(ProcessLookupError):
                    self.transport.kill()
                _kill_marked(mark)
            self.transport.close()


@asynccontextmanager
async def _cage_around(order: Order) -> AsyncIterator[_Caged]:
    """Start a server in a cage, and end all of it after the block. Errors: McpServerError."""
    mark = uuid4().hex
    caged = await _open_cage()
    try:
        try:
            caged.control.write(order._replace(env={**order.env, _MARK: mark}).encode())
        except ValueError as error:
            raise McpServerError("The command failed to start: invalid command.") from error
        kind, _, detail = (await caged.report()).partition(" ")
        if kind != "started":
            raise _not_started(detail)
        yield caged
    finally:
        await caged.end(mark)


def _not_started(number: str) -> McpServerError:
    """Return the error for what the system said, by its number, of a command's start."""
    if not number:
        return McpServerError("The command failed to start: it was killed.", outlook="away")
    reason = f"The command failed to start: {os.strerror(int(number))}."
    return McpServerError(reason, outlook="away" if int(number) in _SCARCE else "refused")


async def _open_cage() -> _Caged:
    loop = asyncio.get_running_loop()
    reading, writing = os.pipe()
    control, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(writing, "wb", 0))
    try:
        transport, protocol = await loop.subprocess_exec(
            _Protocol,
            # Nothing but the standard library, and nothing from the environment.
            *(sys.executable, "-I", "-S", "-X", "utf8", cage.__file__, str(reading)),
            env={name: os.environ[name] for name in _LIBRARIES if name in os.environ},
            cwd=_DIRECTORY,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            start_new_session=True,
            pass_fds=(reading,),
        )
    except BaseException as error:
        control.close()
        if isinstance(error, OSError):
            # It is our own: the machine lacks something for it.
            reason = f"The command failed to start: {error.strerror}."
            raise McpServerError(reason, outlook="away") from error
        raise
    finally:
        os.close(reading)
    process = Process(transport, protocol, loop)
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise RuntimeError("a stream is missing")  # pragma: no cover -- all are pipes
    return _Caged(
        process.stdin, process.stdout, process.stderr, control, transport, protocol.exited
    )


def _kill_marked(mark: str) -> None:
    """Kill what still has a server's mark in its environment, wherever it is."""
    for _ in range(_PASSES):
        left = [process for process in psutil.process_iter() if _has_mark(process, mark)]
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        if not left:
            return


def _has_mark(process: psutil.Process, mark: str) -> bool:
    with suppress(psutil.Error, OSError):
        return process.environ().get(_MARK) == mark
    return False
