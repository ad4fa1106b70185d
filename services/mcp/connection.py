"""Owns one connection to an MCP server, which calls share: opened once, until it ends.

A task of its own holds it open; what the SDK enters it has to leave in the same task.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from time import monotonic
from typing import Final

import structlog
from mcp.client._transport import TransportStreams
from mcp_types import Tool

from services.mcp.addresses import ServerAddress, Timeouts
from services.mcp.conversation import Conversation, all_tools, conversation
from services.mcp.errors import McpServerError, SessionLostError
from services.mcp.http import connect
from services.mcp.http_failures import FailureAsResponse
from services.mcp.oauth import OAuthTokens
from services.mcp.problems import causes_of, problem_of
from services.mcp.stdio import StdioServer
from services.outgoing.client import OutgoingClient

_log = structlog.get_logger(__name__)

_CLOSE_S: Final = 8.0
"""More than it takes to end a process that does not want to."""


def _unheard() -> None:
    """Do nothing: nobody wants to know."""


class Connection:
    """A connection to be opened once. `problem` says why it ended, unless we closed it."""

    def __init__(
        self,
        address: ServerAddress,
        *,
        allowed_hosts: Collection[str],
        timeouts: Timeouts,
        on_tools_changed: Callable[[], None] = _unheard,
        on_lost: Callable[[], None] = _unheard,
    ) -> None:
        self.seal = FailureAsResponse()
        self.problem: str | None = None
        self.used_at = self.opened_at = monotonic()
        self._in_use = 0
        self._at_rest = asyncio.Event()
        self._at_rest.set()
        self._address = address
        self._allowed_hosts = allowed_hosts
        self._timeouts = timeouts
        self._on_tools_changed = on_tools_changed
        self._on_lost = on_lost
        self._process: StdioServer | None = None
        self._conversation: Conversation | None = None
        self._opened = asyncio.Event()
        self._to_end = asyncio.Event()
        self._is_closing = False
        self._owner: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect. Errors: McpServerError."""
        self._owner = asyncio.create_task(self._own())
        opened = asyncio.create_task(self._opened.wait())
        try:
            await asyncio.wait({self._owner, opened}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self.close()
            raise
        finally:
            opened.cancel()
        if not self._opened.is_set():
            raise McpServerError(self.problem or "It can't be connected to.")

    async def close(self) -> None:
        """End the connection, and the server's process with all that it started."""
        self._is_closing = True
        self._to_end.set()
        if self._owner is None:
            return
        if not self._opened.is_set():
            self._owner.cancel()
        _, unfinished = await asyncio.wait({self._owner}, timeout=_CLOSE_S)
        for owner in unfinished:
            owner.cancel()
            await asyncio.wait({owner}, timeout=_CLOSE_S)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Count as in use while the block runs."""
        self._in_use += 1
        self._at_rest.clear()
        try:
            yield
        finally:
            self._in_use -= 1
            self.used_at = monotonic()
            if not self._in_use:
                self._at_rest.set()

    @property
    def is_in_use(self) -> bool:
        """Whether a call waits for its answer."""
        return self._in_use > 0

    async def rest(self) -> None:
        """Return once no call waits any more."""
        await self._at_rest.wait()

    @property
    def conversation(self) -> Conversation | None:
        """What is spoken over, while it is open."""
        return None if self.is_over else self._conversation

    @property
    def is_over(self) -> bool:
        """Whether nothing can be said over it any more."""
        return self._to_end.is_set()

    @property
    def ended_by(self) -> str | None:
        """What the server did to end it, as far as that is known already."""
        return self.problem or (self._process.problem if self._process else None)

    def without_secrets(self, words: str) -> str:
        """Return words of the server without the secrets that it was told."""
        return self._address.without_secrets(words)

    async def list_tools(self, *, spent_s: float = 0.0) -> list[Tool]:
        """Return the tools that the server lists now; `spent_s` of its time is over already.

        Errors: McpServerError; SessionLostError.
        """
        spoken = self.conversation
        if spoken is None:
            raise McpServerError(self.ended_by or "It closed the connection.")
        try:
            async with asyncio.timeout(self._timeouts.whole_s - spent_s):
                return await all_tools(spoken)
        except TimeoutError:
            whole_s = self._timeouts.whole_s
            raise McpServerError(f"It did not list its tools within {whole_s:g} s.") from None
        except Exception as error:
            # The SDK does not say what foreign servers can make it raise, nor is it one thing.
            if self._is_session_lost(error):
                raise SessionLostError(str(error)) from error
            raise McpServerError(self._words_for(error)) from error

    async def _own(self) -> None:
        try:
            async with AsyncExitStack() as stack:
                await self._enter(stack)
                self.opened_at = self.used_at = monotonic()
                self._opened.set()
                await self._to_end.wait()
            if not self._is_closing:
                self.problem = self.ended_by or "It closed the connection."
        except TimeoutError:
            self.problem = self._too_slow()
        except Exception as error:  # noqa: BLE001 -- as above; it is told to whoever waits
            self.problem = self._words_for(error)
            _log.info("mcp_server_failing", cause=type(causes_of(error)[0]).__name__)
        finally:
            self._to_end.set()
            if self._opened.is_set() and not self._is_closing:
                self._on_lost()

    async def _enter(self, stack: AsyncExitStack) -> None:
        async with asyncio.timeout(self._timeouts.connect_s):
            streams = await stack.enter_async_context(self._transport())
            self._conversation = await stack.enter_async_context(
                conversation(
                    streams, on_end=self._to_end.set, on_tools_changed=self._on_tools_changed
                )
            )

    def _transport(self) -> AbstractAsyncContextManager[TransportStreams]:
        address = self._address
        if address.url is not None:
            return self._over_http(address.url)
        self._process = StdioServer(
            address.command or "",
            address.args,
            address.secrets,
            home=address.home,
            memory_bytes=address.memory_bytes,
        )
        return self._process.connect()

    @asynccontextmanager
    async def _over_http(self, url: str) -> AsyncIterator[TransportStreams]:
        async with AsyncExitStack() as stack:
            tokens: OAuthTokens | None = None
            if self._address.oauth is not None:
                outgoing = OutgoingClient(allowed_hosts=self._allowed_hosts)
                await stack.enter_async_context(outgoing)
                tokens = OAuthTokens(outgoing, self._address.oauth, url)
            yield await stack.enter_async_context(
                connect(
                    url,
                    headers=self._address.secrets,
                    allowed_hosts=self._allowed_hosts,
                    seal=self.seal,
                    tokens=tokens,
                )
            )

    def _words_for(self, error: Exception) -> str:
        for cause in causes_of(error):
            failure = self.seal.failure_of(cause)
            if failure is not None:
                return failure.sentence
        words = problem_of(error, self._process.problem if self._process else None)
        return self.without_secrets(words)

    def _is_session_lost(self, error: Exception) -> bool:
        failure = self.seal.failure_of(error)
        return failure is not None and failure.is_session_lost

    def _too_slow(self) -> str:
        has_strayed = self._process is not None and self._process.has_strayed
        hint = " It writes what is no message of MCP to its standard output." if has_strayed else ""
        return f"It did not answer within {self._timeouts.connect_s:g} s.{hint}"
