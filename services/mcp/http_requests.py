"""Owns sending the requests of one MCP connection so that none can end or hold up the others.

Each has bounds of its own; one that is given up is closed; a token that was refused is renewed.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Self

import anyio
import httpx2
from mcp_types import RequestId
from pydantic_core import from_json

from services.mcp.allowances import Allowance
from services.mcp.errors import McpServerError
from services.mcp.exchange import MAX_ANSWER_BYTES, MAX_BYTES, TOO_LONG
from services.mcp.http_failures import FailureAsResponse, HttpFailure, failure_of_status
from services.mcp.oauth import OAuthTokens
from services.outgoing.errors import OutgoingError, TooLargeError

_ASIDE_S: Final = 5.0
"""For what is not a call: other messages wait behind a notification."""
_MAX_LINES: Final = 80_000
_MAX_LISTENINGS: Final = 30
_REFILL_S: Final = 300.0
_UNAUTHORIZED: Final = 401
_ERRORS: Final = 400
_GIVEN_UP: Final = HttpFailure("The call was given up.", reached=True)
_TOO_LONG: Final = HttpFailure(TOO_LONG, reached=True, is_too_long=True)


class SeparateRequests(httpx2.AsyncBaseTransport):
    """Answers for each request by itself; the `inner` transport does the sending."""

    def __init__(
        self, inner: httpx2.AsyncBaseTransport, seal: FailureAsResponse, tokens: OAuthTokens | None
    ) -> None:
        self._inner = inner
        self._seal = seal
        self._tokens = tokens
        self._under_way: dict[RequestId, _UnderWay] = {}
        self._heard_of_itself = _Flow()
        self._listenings = Allowance(_MAX_LISTENINGS, refill_s=_REFILL_S)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; one of JSON-RPC is always answered, if need be with its failure."""
        if request.method == "GET":
            return await self._listen(request)
        message = from_json(request.content) if request.method == "POST" else {}
        if "method" in message and "id" in message:
            return await self._ask(request, message["id"])
        return await self._tell(request, message)

    async def _ask(self, request: httpx2.Request, asked: RequestId) -> httpx2.Response:
        under_way = self._under_way[asked] = _UnderWay()
        response: httpx2.Response | None = None
        try:
            with under_way.scope:
                response = await self._answer(request, asked, under_way)
        except TooLargeError:
            response = self._seal.answer(_TOO_LONG, asked)
        except OutgoingError as error:
            failure = HttpFailure(
                error.sentence, reached=error.reached, is_unreachable=not error.reached
            )
            response = self._seal.answer(failure, asked)
        except McpServerError as error:
            response = self._seal.answer(HttpFailure(str(error), reached=False), asked)
        if response is None or not isinstance(response.stream, _Stream):
            self._under_way.pop(asked, None)
        return response or self._seal.answer(_GIVEN_UP, asked)

    async def _answer(
        self, request: httpx2.Request, asked: RequestId, under_way: "_UnderWay"
    ) -> httpx2.Response:
        response = await self._authorised(request)
        if response.is_success and _kind(response) == "text/event-stream":
            # What ends a stream for good, should the call be given up.
            ending = b"\n\ndata: " + self._seal.message(_GIVEN_UP, asked) + b"\n\n"
            under_way.on_close = lambda: self._under_way.pop(asked, None)
            return _with_stream(response, _Stream(response, _Flow(), under_way, ending))
        read = httpx2.Response(
            response.status_code, headers=response.headers, content=await _read(response)
        )
        if read.status_code < _ERRORS:
            return read
        failure = failure_of_status(read, had_session="mcp-session-id" in request.headers)
        return read if failure is None else self._seal.answer(failure, asked)

    async def _tell(self, request: httpx2.Request, message: dict[str, Any]) -> httpx2.Response:
        """Send what has no answer. Whether it arrives makes no difference to the rest."""
        try:
            async with asyncio.timeout(_ASIDE_S):
                response = await self._authorised(request)
                await response.aclose()
        except (OutgoingError, McpServerError, TimeoutError):
            pass
        if message.get("method") == "notifications/cancelled":
            under_way = self._under_way.pop(message["params"]["requestId"], None)
            if under_way is not None:
                under_way.give_up()
        return httpx2.Response(202 if request.method == "POST" else 204)

    async def _listen(self, request: httpx2.Request) -> httpx2.Response:
        """Open the stream on which a server speaks of itself; the SDK does without if need be."""
        if not self._listenings.take(1):
            raise McpServerError("It closes the stream again and again.")
        response = await self._authorised(request)
        return _with_stream(response, _Stream(response, self._heard_of_itself, _UnderWay(), b""))

    async def _authorised(self, request: httpx2.Request) -> httpx2.Response:
        if self._tokens is None:
            return await self._inner.handle_async_request(request)
        token = await self._tokens.current()
        response = await self._inner.handle_async_request(_with_token(request, token))
        if response.status_code != _UNAUTHORIZED:
            return response
        await response.aclose()
        token = await self._tokens.renewed(instead_of=token)
        return await self._inner.handle_async_request(_with_token(request, token))

    async def aclose(self) -> None:
        """Close what there is."""
        await self._inner.aclose()


class _Flow:
    """How much may come on one stream; it comes back with time."""

    def __init__(self) -> None:
        self._bytes = Allowance(MAX_BYTES, refill_s=_REFILL_S)
        self._lines = Allowance(_MAX_LINES, refill_s=_REFILL_S)

    def count(self, chunk: bytes) -> None:
        if not self._bytes.take(len(chunk)) or not self._lines.take(chunk.count(b"\n")):
            raise McpServerError("It says too much without an answer.")


class _UnderWay:
    """A request that can be given up from elsewhere."""

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.is_given_up = False
        self.on_close: Callable[[], object] = lambda: None

    def give_up(self) -> None:
        self.is_given_up = True
        self.scope.cancel()


class _Stream(httpx2.AsyncByteStream):
    """The body of an answer that comes in pieces: counted, and ended when it is given up."""

    def __init__(
        self, response: httpx2.Response, flow: _Flow, under_way: _UnderWay, ending: bytes
    ) -> None:
        self._response = response
        self._chunks = _chunks(response)
        self._flow = flow
        self._under_way = under_way
        self._ending = ending

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._under_way.is_given_up:
            with anyio.CancelScope() as self._under_way.scope:
                chunk = await anext(self._chunks)
                self._flow.count(chunk)
                return chunk
        ending, self._ending = self._ending, b""
        if not ending:
            raise StopAsyncIteration
        return ending

    async def aclose(self) -> None:
        self._under_way.on_close()
        await self._response.aclose()


def _with_stream(response: httpx2.Response, stream: _Stream) -> httpx2.Response:
    return httpx2.Response(response.status_code, headers=response.headers, stream=stream)


def _kind(response: httpx2.Response) -> str:
    return str(response.headers.get("content-type", "")).lower().partition(";")[0].strip()


def _chunks(response: httpx2.Response) -> AsyncIterator[bytes]:
    stream = response.stream
    if not isinstance(stream, httpx2.AsyncByteStream):  # pragma: no cover -- the library's own
        raise TypeError("the stream is not asynchronous")
    return aiter(stream)


async def _read(response: httpx2.Response) -> bytes:
    content = bytearray()
    try:
        async for chunk in _chunks(response):
            content += chunk
            if len(content) > MAX_ANSWER_BYTES:
                raise TooLargeError(MAX_ANSWER_BYTES)
    finally:
        await response.aclose()
    return bytes(content)


def _with_token(request: httpx2.Request, token: str) -> httpx2.Request:
    request.headers["Authorization"] = f"Bearer {token}"
    return request
