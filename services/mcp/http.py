"""Streamable HTTP to an MCP server: each request is bounded, and fails on its own.

The SDK ends a connection, with all calls in progress, when one of its requests raises. So a failed
request is answered here as if by the server, with a JSON-RPC error that only we can create.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any, Final, Self

import anyio
import httpx2
from mcp_types import INTERNAL_ERROR, ErrorData, JSONRPCError, RequestId, jsonrpc_message_adapter
from pydantic import ValidationError
from pydantic_core import from_json

from services.mcp.bodies import RepairedLines, chunks_of, read_body
from services.mcp.challenges import challenge_in, named
from services.mcp.errors import McpServerError, Outlook, is_away_by
from services.mcp.limits import (
    MAX_ANSWER_BYTES,
    MAX_BYTES,
    MAX_ITEMS,
    REFILL_S,
    TOO_LONG,
    TokenBucket,
    has_too_many_items,
)
from services.mcp.oauth import AuthorizedTransport, OAuthTokens
from services.mcp.sdk import MCPError, TransportStreams, streamable_http_client
from services.outgoing.errors import OutgoingError, RedirectedError, TooLargeError
from services.outgoing.transport import FewCookies, guarded_transport, weight_of
from services.retry_after import wait_asked_for

_CONNECT_TIMEOUT_S: Final = 5.0
_WRITE_TIMEOUT_S: Final = 20.0
_NOTIFICATION_S: Final = 5.0
"""For what is not a call: other messages wait behind a notification."""
_MAX_LINES: Final = 80_000
_BURST_LINES: Final = 2_000
_BURST_REFILL_S: Final = 2.0
_MAX_LISTENS: Final = 30
_MAX_CHECKED_BYTES: Final = 256 * 1024
_MISSING: Final = 404
_REFUSED: Final = frozenset({401, 403})
_NOT_REACHED: Final = _REFUSED | {429}
"""Statuses that say that nothing was done."""
# Longer than the retries of any call: a call that must wait this long fails, and is not retried
# early.
_MAX_WAIT: Final = timedelta(days=1)
_MARK: Final = "everturn"


@asynccontextmanager
async def connect(
    url: str,
    *,
    headers: Mapping[str, str],
    allowed_hosts: Collection[str],
    failures: "FailureAsResponse",
    tokens: OAuthTokens | None = None,
) -> AsyncIterator[TransportStreams]:
    """Connect while the block runs; a failed request gets its failure as its answer."""
    # The caller bounds how long an answer may take.
    timeout = httpx2.Timeout(
        None, connect=_CONNECT_TIMEOUT_S, write=_WRITE_TIMEOUT_S, pool=_CONNECT_TIMEOUT_S
    )
    guarded = guarded_transport(allowed_hosts=allowed_hosts)
    async with (
        httpx2.AsyncClient(
            # Compressed, an answer could be a thousand times what was counted.
            headers={**headers, "Accept-Encoding": "identity"},
            timeout=timeout,
            cookies=FewCookies(),
            transport=IsolatedRequests(
                guarded if tokens is None else AuthorizedTransport(guarded, tokens), failures
            ),
            trust_env=False,
        ) as client,
        streamable_http_client(
            url, http_client=client, max_sse_event_size=MAX_ANSWER_BYTES
        ) as streams,
    ):
        yield streams


@dataclass(frozen=True, slots=True)
class HttpFailure:
    """Why a request failed; `reached` is whether the server may have acted on it.

    `is_unreachable` is whether the server can't be reached by any request.
    """

    sentence: str
    reached: bool
    is_session_lost: bool = False
    is_too_long: bool = False
    is_unreachable: bool = False
    retry_after_s: float | None = None
    outlook: Outlook = "away"


_CANCELLED: Final = HttpFailure("The call was cancelled.", reached=True)
_TOO_MUCH: Final = HttpFailure("The server sent too much without answering.", reached=True)
_OTHER: Final = HttpFailure("The server's response is for a different request.", reached=True)
_TOO_LONG: Final = HttpFailure(TOO_LONG, reached=True, is_too_long=True)


@dataclass(frozen=True, slots=True)
class FailureAsResponse:
    """Failures as JSON-RPC errors, with a random mark that no server can forge."""

    _mark: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    def response(self, failure: HttpFailure, request_id: RequestId) -> httpx2.Response:
        """Return the HTTP response that carries a failure."""
        return httpx2.Response(
            status_code=500,
            headers={"Content-Type": "application/json"},
            content=self.message(failure, request_id),
        )

    def message(self, failure: HttpFailure, request_id: RequestId) -> bytes:
        """Return the JSON-RPC error that carries a failure."""
        data = {_MARK: self._mark, **asdict(failure)}
        error = ErrorData(code=INTERNAL_ERROR, message=failure.sentence, data=data)
        message = JSONRPCError(jsonrpc="2.0", id=request_id, error=error)
        return message.model_dump_json(by_alias=True).encode()

    def event(self, failure: HttpFailure, request_id: RequestId) -> bytes:
        """Return the server-sent event that carries a failure, wherever a stream stands."""
        return b"\n\ndata: " + self.message(failure, request_id) + b"\n\n"

    def failure_of(self, error: Exception) -> HttpFailure | None:
        """Return the failure that an error carries, if it is one of ours."""
        data = error.error.data if isinstance(error, MCPError) else None
        if not isinstance(data, dict) or data.get(_MARK) != self._mark:
            return None
        found: dict[str, Any] = {key: value for key, value in data.items() if key != _MARK}
        return HttpFailure(**found)


class IsolatedRequests(httpx2.AsyncBaseTransport):
    """Sends each request through the `inner` transport, with limits and a failure of its own."""

    def __init__(
        self,
        inner: httpx2.AsyncBaseTransport,
        failures: FailureAsResponse,
    ) -> None:
        self._inner = inner
        self._failures = failures
        self._pending: dict[RequestId, _Pending] = {}
        self._listen_limit = _StreamLimit()
        self._listens = TokenBucket(_MAX_LISTENS, refill_s=REFILL_S)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; a JSON-RPC request is always answered, if need be with its failure."""
        if request.method == "GET":
            return await self._listen(request)
        message = from_json(request.content) if request.method == "POST" else {}
        if "method" in message and "id" in message:
            return await self._call(request, message["id"])
        return await self._notify(request, message)

    async def _call(self, request: httpx2.Request, request_id: RequestId) -> httpx2.Response:
        pending = self._pending[request_id] = _Pending()
        response: httpx2.Response | None = None
        try:
            with pending.scope:
                response = await self._answer(request, request_id, pending)
        except TooLargeError:
            response = self._failures.response(_TOO_LONG, request_id)
        except OutgoingError as error:
            failure = HttpFailure(
                error.sentence,
                reached=error.reached,
                is_unreachable=not error.reached,
                outlook="refused" if error.is_final else "away",
            )
            response = self._failures.response(failure, request_id)
        except McpServerError as error:
            failure = HttpFailure(str(error), reached=False, outlook=error.outlook)
            response = self._failures.response(failure, request_id)
        if response is None or not isinstance(response.stream, _Stream):
            self._pending.pop(request_id, None)
        return response or self._failures.response(_CANCELLED, request_id)

    async def _answer(
        self, request: httpx2.Request, request_id: RequestId, pending: "_Pending"
    ) -> httpx2.Response:
        response = await self._inner.handle_async_request(request)
        if response.is_redirect:
            await response.aclose()
            raise RedirectedError
        if response.is_success and _media_type(response) == "text/event-stream":
            pending.on_close = lambda: self._pending.pop(request_id, None)
            pending.event_of = lambda failure: self._failures.event(failure, request_id)
            return _with_stream(response, _Stream(response, _StreamLimit(), pending))
        content = await read_body(response)
        if has_too_many_items(content):
            raise TooLargeError(MAX_ANSWER_BYTES)
        whole = httpx2.Response(response.status_code, headers=response.headers, content=content)
        if whole.status_code < 400:
            is_other = not _may_answer(whole.content, request_id)
            return self._failures.response(_OTHER, request_id) if is_other else whole
        failure = _status_failure(whole, request)
        return whole if failure is None else self._failures.response(failure, request_id)

    async def _notify(self, request: httpx2.Request, message: dict[str, Any]) -> httpx2.Response:
        """Send what has no answer. Whether it arrives makes no difference to the rest."""
        try:
            async with asyncio.timeout(_NOTIFICATION_S):
                response = await self._inner.handle_async_request(request)
                await response.aclose()
        except (OutgoingError, McpServerError, TimeoutError):
            pass
        if message.get("method") == "notifications/cancelled":
            pending = self._pending.pop(message["params"]["requestId"], None)
            if pending is not None:
                pending.cancel()
        return httpx2.Response(202 if request.method == "POST" else 204)

    async def _listen(self, request: httpx2.Request) -> httpx2.Response:
        """Open the stream for what the server sends unasked; the SDK can do without it."""
        if not self._listens.take(1):
            raise McpServerError("The server keeps closing its event stream.")
        response = await self._inner.handle_async_request(request)
        return _with_stream(response, _Stream(response, self._listen_limit, _Pending()))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


class _StreamLimit:
    """How much may come on one stream; it refills over time."""

    def __init__(self) -> None:
        self._bytes = TokenBucket(MAX_BYTES, refill_s=REFILL_S)
        self._lines = TokenBucket(_MAX_LINES, refill_s=REFILL_S)
        self._pace = TokenBucket(_BURST_LINES, refill_s=_BURST_REFILL_S)
        self._line = bytearray()
        self._counted_at = MAX_ITEMS

    def wait_s(self, chunk: bytes) -> float | None:
        """Return how long to wait before a chunk is passed on; None if it is too much.

        Each message costs the worker time that calls of others need: a flood gets a share of it.
        """
        lines = chunk.count(b"\n")
        if not self._bytes.take(weight_of(chunk)) or not self._lines.take(lines):
            return None
        if self._has_too_many_items(chunk):
            return None
        return self._pace.debt_s(lines)

    def _has_too_many_items(self, chunk: bytes) -> bool:
        """Return whether the line that a chunk begins or goes on with has too many of them."""
        if b"\n" in chunk:
            self._line, self._counted_at = bytearray(chunk.rpartition(b"\n")[2]), MAX_ITEMS
        else:
            self._line += chunk
        if len(self._line) <= self._counted_at:
            return False
        # An item has a byte at least; what is counted again has doubled.
        self._counted_at = 2 * len(self._line)
        return has_too_many_items(self._line)


class _Pending:
    """A request that can be ended from elsewhere: `failure` is why, and `event_of` tells it."""

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.failure: HttpFailure | None = None
        self.event_of: Callable[[HttpFailure], bytes] = lambda _: b""
        self.on_close: Callable[[], object] = lambda: None

    def cancel(self) -> None:
        self.failure = _CANCELLED
        self.scope.cancel()


class _Stream(httpx2.AsyncByteStream):
    """The body of a streamed answer: counted, and ended for good when the request has failed."""

    def __init__(self, response: httpx2.Response, limit: _StreamLimit, pending: _Pending) -> None:
        self._response = response
        self._chunks = chunks_of(response)
        self._limit = limit
        self._pending = pending
        self._lines = RepairedLines()
        self._has_ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        pending = self._pending
        if pending.failure is None:
            with anyio.CancelScope() as pending.scope:
                chunk = await anext(self._chunks)
                wait_s = self._limit.wait_s(chunk)
                if wait_s is not None:
                    await asyncio.sleep(wait_s)
                    return self._lines.feed(chunk)
                pending.failure = _TOO_MUCH
        ending = b"" if pending.failure is None else pending.event_of(pending.failure)
        if self._has_ended or not ending:
            raise StopAsyncIteration
        self._has_ended = True
        return ending

    async def aclose(self) -> None:
        self._pending.on_close()
        await self._response.aclose()


def _status_failure(response: httpx2.Response, request: httpx2.Request) -> HttpFailure | None:
    """Return what a status means, unless the body is a JSON-RPC error of the server."""
    status = response.status_code
    if status == _MISSING and "mcp-session-id" in request.headers:
        return HttpFailure("The session has expired.", reached=False, is_session_lost=True)
    # Who may not call is a matter of the connection, whatever form the refusal has.
    if status not in _REFUSED and _is_rpc_error(response.content):
        return None
    wait = wait_asked_for(response.headers, longest=_MAX_WAIT)
    return HttpFailure(
        f"The server responded with HTTP status {status}.{_scopes_asked(response, request)}",
        reached=status not in _NOT_REACHED,
        retry_after_s=None if wait is None else wait.total_seconds(),
        outlook=_outlook_of(status),
    )


def _outlook_of(status: int) -> Outlook:
    if status == _MISSING:
        return "missing"
    return "away" if is_away_by(status) else "refused"


def _scopes_asked(response: httpx2.Response, request: httpx2.Request) -> str:
    if response.status_code not in _REFUSED:
        return ""
    scopes = challenge_in(response.headers).scopes
    # A server could name what it was sent as a scope.
    shown = named(scopes, secrets=request.headers.values())
    return f" It asks for the scopes {shown}." if shown else ""


def _may_answer(body: bytes, request_id: RequestId) -> bool:
    """Return whether a body can be the answer to a request: the SDK would wait for another one.

    What can't be read is none of these, and a large body is not read twice.
    """
    if len(body) > _MAX_CHECKED_BYTES:
        return True
    try:
        message = from_json(body)
    except ValueError:
        return True
    return not isinstance(message, dict) or str(message.get("id")) == str(request_id)


def _is_rpc_error(body: bytes) -> bool:
    try:
        return isinstance(jsonrpc_message_adapter.validate_json(body, by_name=False), JSONRPCError)
    except ValidationError:
        return False


def _with_stream(response: httpx2.Response, stream: _Stream) -> httpx2.Response:
    return httpx2.Response(response.status_code, headers=response.headers, stream=stream)


def _media_type(response: httpx2.Response) -> str:
    return str(response.headers.get("content-type", "")).lower().partition(";")[0].strip()
