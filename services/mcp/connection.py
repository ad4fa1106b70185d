"""One connection to an MCP server, shared by calls: opened once, until either side ends it.

A separate task holds it open, because the SDK's context managers must be left by the task that
entered them.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from time import monotonic
from typing import Any, Final

import structlog
from mcp_types import CallToolRequestParams, CallToolResult, Tool
from pydantic import ValidationError

from services.mcp.addresses import ServerAddress, Timeouts
from services.mcp.destinations import Destinations
from services.mcp.errors import (
    CallLostError,
    CallRejectedError,
    McpCallError,
    McpServerError,
    Outlook,
    SessionLostError,
    bounded,
)
from services.mcp.http import FailureAsResponse, HttpFailure, connect
from services.mcp.limits import MAX_ANSWER_BYTES, MAX_ITEMS, TOO_LONG
from services.mcp.oauth import OAuthTokens
from services.mcp.sdk import (
    MCPError,
    McpSession,
    ProgressFnT,
    TransportStreams,
    describe,
    flattened,
    is_connection_lost,
    is_unreadable,
    open_session,
    outlook_of,
)
from services.mcp.stdio import StdioServer
from services.outgoing.client import OutgoingClient
from services.tools.masks import SecretMask

_log = structlog.get_logger(__name__)

_CLOSE_S: Final = 8.0
"""More than it takes to end a process that resists."""
_MAX_ROUNDS: Final = 10
_PAUSE_S: Final = 0.25
_MAX_ERROR: Final = 1_000
_CLOSED: Final = "The server closed the connection."


def _ignore() -> None:
    """Do nothing."""


async def list_tools(
    address: ServerAddress, *, allowed_hosts: Collection[str], timeouts: Timeouts
) -> list[Tool]:
    """Return a server's tools, over a connection that is opened and closed for that.

    Errors: McpServerError for any fault of the server, in a sentence without its secrets.
    """
    connection = Connection(address, allowed_hosts=allowed_hosts, timeouts=timeouts)
    try:
        began_at = monotonic()
        await connection.open()
        return await connection.list_tools(spent_s=monotonic() - began_at)
    except SessionLostError as error:
        raise McpServerError("The server keeps losing its session.") from error
    finally:
        await connection.close()


class Connection:
    """A connection to be opened once. `problem` says why it ended, unless we closed it."""

    def __init__(
        self,
        address: ServerAddress,
        *,
        allowed_hosts: Collection[str],
        timeouts: Timeouts,
        on_tools_changed: Callable[[], None] = _ignore,
        on_lost: Callable[[], None] = _ignore,
    ) -> None:
        self.problem: str | None = None
        self._outlook: Outlook = "away"
        self.used_at = self.opened_at = monotonic()
        self._failures = FailureAsResponse()
        self._in_use = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._address = address
        self._allowed_hosts = allowed_hosts
        self._timeouts = timeouts
        self._on_tools_changed = on_tools_changed
        self._on_lost = on_lost
        self._process: StdioServer | None = None
        self._tokens: OAuthTokens | None = None
        self._mask: SecretMask | None = None
        self._masked_tokens: tuple[str, ...] = ()
        self._session: McpSession | None = None
        self._opened = asyncio.Event()
        self._ended = asyncio.Event()
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
            raise McpServerError(self.problem or "Connection failed.", outlook=self._outlook)

    async def close(self) -> None:
        """End the connection, and the server's process with all that it started."""
        self._is_closing = True
        self._ended.set()
        if self._owner is None:
            return
        if not self._opened.is_set():
            self._owner.cancel()
        _, unfinished = await asyncio.wait({self._owner}, timeout=_CLOSE_S)
        for owner in unfinished:
            owner.cancel()
            await asyncio.wait({owner}, timeout=_CLOSE_S)

    @property
    def mask(self) -> SecretMask:
        """What takes the server's own secrets out of what it says."""
        issued = self._tokens.issued if self._tokens else ()
        if self._mask is None or self._masked_tokens != issued:
            self._mask, self._masked_tokens = self._address.mask(*issued), issued
        return self._mask

    @property
    def is_in_use(self) -> bool:
        """Whether a call is waiting for its answer."""
        return self._in_use > 0

    async def wait_until_idle(self) -> None:
        """Return once no call is waiting."""
        await self._is_idle.wait()

    @property
    def has_ended(self) -> bool:
        """Whether nothing can be sent over it any more."""
        return self._ended.is_set()

    @property
    def ended_by(self) -> str | None:
        """What the server did to end it, as far as that is known already."""
        return self.problem or (self._process.problem if self._process else None)

    async def list_tools(self, *, spent_s: float = 0.0) -> list[Tool]:
        """Return the tools that the server lists now; `spent_s` of its time has passed already.

        Errors: McpServerError; SessionLostError.
        """
        if self._session is None or self.has_ended:
            raise McpServerError(self.ended_by or _CLOSED)
        try:
            async with asyncio.timeout(self._timeouts.whole_s - spent_s):
                return [self._masked(tool) for tool in await self._session.list_tools()]
        except TimeoutError:
            whole_s = self._timeouts.whole_s
            raise McpServerError(f"Listing tools timed out after {whole_s:g} s.") from None
        except Exception as error:
            # The SDK does not document its exceptions, and a server can cause many.
            failure = self._failures.failure_of(error)
            if failure is not None and failure.is_session_lost:
                raise SessionLostError(str(error)) from error
            raise McpServerError(self._problem_of(error)) from error

    async def call_tool(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        meta: Mapping[str, Any],
        on_progress: ProgressFnT,
    ) -> CallToolResult:
        """Call a tool by the name that it has on the server. Errors: McpCallError.

        If the call is cancelled, so is the request on the server; the connection stays open.
        """
        if self._session is None or self.has_ended:
            raise CallLostError(self.ended_by or _CLOSED, reached=False)
        params = CallToolRequestParams.model_validate(
            {"name": tool, "arguments": dict(arguments), "_meta": dict(meta)}
        )
        try:
            with self._used():
                return await _result(self._session, params, self._masked_progress(on_progress))
        except MCPError as error:
            raise self._call_error(error) from error
        except McpServerError as error:
            raise CallRejectedError(f"The call was rejected. {error}") from error
        except ValidationError as error:
            raise CallRejectedError(
                "Invalid MCP response. The call may have taken effect."
            ) from error

    def _masked(self, tool: Tool) -> Tool:
        told = json.dumps(tool.model_dump(by_alias=True, exclude_unset=True))
        masked = self.mask(told)
        return tool if masked == told else Tool.model_validate(json.loads(masked), by_name=False)

    def _masked_progress(self, report: ProgressFnT) -> ProgressFnT:
        async def masked(progress: float, total: float | None, message: str | None) -> None:
            text = None if message is None else self.mask.cut(message, _MAX_ERROR)
            await report(progress, total, text)

        return masked

    @contextmanager
    def _used(self) -> Iterator[None]:
        """Count as in use while the block runs."""
        self._in_use += 1
        self._is_idle.clear()
        try:
            yield
        finally:
            self._in_use -= 1
            self.used_at = monotonic()
            if not self._in_use:
                self._is_idle.set()

    async def _own(self) -> None:
        try:
            async with AsyncExitStack() as stack:
                await self._enter(stack)
                self.opened_at = self.used_at = monotonic()
                self._opened.set()
                await self._ended.wait()
                # Before its process is ended, which takes its time: calls go on meanwhile.
                self._report_lost(self.ended_by or _CLOSED)
        except TimeoutError:
            self._report_lost(self._timeout_problem())
        except Exception as error:  # noqa: BLE001 -- as above; `open` reports it
            self._outlook = self._outlook_of(error)
            self._report_lost(self._problem_of(error))
            _log.info("mcp_server_failing", cause=type(flattened(error)[0]).__name__)
        finally:
            self._ended.set()

    def _report_lost(self, problem: str) -> None:
        """Note why the server ended the connection, unless it is known, or we did."""
        if self._is_closing or self.problem is not None:
            return
        self.problem = problem
        self._ended.set()
        if self._opened.is_set():
            self._on_lost()

    async def _enter(self, stack: AsyncExitStack) -> None:
        async with asyncio.timeout(self._timeouts.connect_s):
            streams = await stack.enter_async_context(self._transport())
            self._session = await stack.enter_async_context(
                open_session(
                    streams, on_end=self._ended.set, on_tools_changed=self._on_tools_changed
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
            processes=address.processes,
        )
        return self._process.connect()

    @asynccontextmanager
    async def _over_http(self, url: str) -> AsyncIterator[TransportStreams]:
        async with AsyncExitStack() as stack:
            if self._address.oauth is not None:
                destinations = Destinations(
                    await stack.enter_async_context(
                        OutgoingClient(allowed_hosts=self._allowed_hosts)
                    ),
                    await stack.enter_async_context(OutgoingClient(allowed_hosts=())),
                )
                self._tokens = OAuthTokens(destinations, self._address.oauth, url)
            yield await stack.enter_async_context(
                connect(
                    url,
                    headers=self._address.secrets,
                    allowed_hosts=self._allowed_hosts,
                    failures=self._failures,
                    tokens=self._tokens,
                )
            )

    def _failure_of(self, error: Exception) -> HttpFailure | None:
        found = map(self._failures.failure_of, flattened(error))
        return next((failure for failure in found if failure is not None), None)

    def _outlook_of(self, error: Exception) -> Outlook:
        """Return what a failure to connect says of the next attempt."""
        failure = self._failure_of(error)
        if failure is not None:
            return failure.outlook
        if self._process is not None and self._process.problem is not None:
            return self._process.outlook
        return outlook_of(error)

    def _problem_of(self, error: Exception) -> str:
        failure = self._failure_of(error)
        if failure is not None:
            return failure.sentence
        ended_by = self._process.problem if self._process else None
        return bounded(self.mask(describe(error, ended_by)))

    def _timeout_problem(self) -> str:
        has_stray_lines = self._process is not None and self._process.has_stray_lines
        hint = " It writes non-MCP output to stdout." if has_stray_lines else ""
        return f"Connecting timed out after {self._timeouts.connect_s:g} s.{hint}"

    def _call_error(self, error: MCPError) -> McpCallError:
        failure = self._failures.failure_of(error)
        if failure is not None and failure.is_session_lost:
            return SessionLostError(failure.sentence)
        if failure is not None and not failure.is_too_long:
            return CallLostError(
                failure.sentence,
                reached=failure.reached,
                retry_after_s=failure.retry_after_s,
                is_unreachable=failure.is_unreachable,
                outlook=failure.outlook,
            )
        if error.message == TOO_LONG:
            return CallRejectedError(
                f"The tool's result exceeds the limit of {MAX_ANSWER_BYTES // 2**20} MiB or "
                f"{MAX_ITEMS:,} items. Request less data."
            )
        if is_connection_lost(error):
            return CallLostError(self.ended_by or "The connection was lost.", reached=True)
        if is_unreadable(error):
            return CallRejectedError(
                "The tool's response is too large or incomplete. The call may have taken effect."
            )
        text = bounded(self.mask.cut(error.message, _MAX_ERROR), _MAX_ERROR)
        return CallRejectedError(f"The tool's server rejected the call: {text}")


async def _result(
    session: McpSession, params: CallToolRequestParams, on_progress: ProgressFnT
) -> CallToolResult:
    for _ in range(_MAX_ROUNDS):
        answer = await session.call_tool(params, on_progress)
        if isinstance(answer, CallToolResult):
            return answer
        if answer.input_requests:
            raise CallRejectedError("The tool asked for user input, which is not supported.")
        # It only asks for the request to be repeated with this state.
        params = params.model_copy(update={"request_state": answer.request_state})
        await asyncio.sleep(_PAUSE_S)
    raise CallRejectedError("The tool kept asking for the call to be repeated.")
