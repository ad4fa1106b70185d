"""The call of a model: the request and its streamed answer.

The official SDK sends the request; the answer is read here, within bounds, from its bytes. The
SDK's own retries are off: retrying belongs to Temporal.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import httpx2

from schema.usage import TokenUsage
from services.models.assembly import MessageAssembly, Said
from services.models.event_stream import (
    AnswerEvents,
    BodyReader,
    max_answer_bytes,
    read_json,
)
from services.models.failures import (
    FailureKind,
    ModelCallError,
    broken_stream,
    provider_error,
    runaway,
)
from services.models.request_bodies import (
    READER,
    ContentReader,
    ContentUnavailableError,
    stream_files,
)
from services.outgoing.providers import isolate_requests

if TYPE_CHECKING:
    import anthropic
    from anthropic import APIRequest, AsyncAPIResponse, AsyncCallNext
    from anthropic.types import (
        MessageParam,
        OutputConfigParam,
        TextBlockParam,
        ThinkingConfigParam,
        ToolParam,
    )

# Beyond this size, what an answer holds is put together beside the event loop.
_ASSEMBLED_AT_ONCE: Final = 32 * 1024

_ERROR_TIMEOUT_S: Final = 10.0
_COUNT_TIMEOUT_S: Final = 2.0

_NEVER_SENT: Final = (
    *(httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError),
    *(httpx2.UnsupportedProtocol, httpx2.LocalProtocolError),
)


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """What to ask the model, in the Messages API's own shapes.

    Without `thinking` the model's default applies; its thinking counts towards `max_tokens`.
    `sampling` are parameters that older models and other servers take; the SDK knows none of them.
    `longest` is what `max_tokens` was before a budget shortened it: some servers don't heed it.
    `read` reads the files that its messages name as StoredContent.
    """

    model: str
    system: "list[TextBlockParam]"
    messages: "list[MessageParam]"
    tools: "list[ToolParam]"
    max_tokens: int
    thinking: "ThinkingConfigParam | None" = None
    output: "OutputConfigParam | None" = None
    longest: int = 0
    sampling: Mapping[str, float] = field(default_factory=dict)
    stop_sequences: Sequence[str] = ()
    read: ContentReader | None = None


@dataclass(frozen=True, slots=True)
class AnswerStarted:
    """The provider accepted the request; from now on the input costs."""

    usage: TokenUsage


@dataclass(frozen=True, slots=True)
class TextArrived:
    """More text."""

    text: str


@dataclass(frozen=True, slots=True)
class ThoughtArrived:
    """More of the model's thoughts: no part of its answer."""

    text: str


@dataclass(frozen=True, slots=True)
class AnswerEnded:
    """The answer is complete; `unreadable` are the ids of tool calls with an invalid input.

    `stop_reason` is a short word, `unknown` if the provider's is none. `usage_estimated` says that
    the provider left out some of the usage, or reported what can't be true.
    """

    blocks: list[dict[str, Any]]
    stop_reason: str
    usage: TokenUsage
    unreadable: frozenset[str] = frozenset()
    usage_estimated: bool = False


ModelEvent: TypeAlias = AnswerStarted | TextArrived | ThoughtArrived | AnswerEnded


class ModelGateway:
    """Calls Anthropic's Messages API, or a compatible server at `base_url`.

    Units: `idle_timeout_s` is the longest silence within an answer, `answer_timeout_s` the longest
    time from the request to the end of the answer, both in seconds.
    """

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str | None,
        idle_timeout_s: float,
        answer_timeout_s: float,
        connections: int,
    ) -> None:
        self._api_key, self._base_url = api_key, base_url
        self._answer_timeout_s = answer_timeout_s
        self._timeout = httpx2.Timeout(connect=10, read=idle_timeout_s, write=30, pool=30)
        self._limits = httpx2.Limits(
            max_connections=connections, max_keepalive_connections=connections
        )

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Call the model and yield its answer as it arrives, `AnswerEnded` last.

        Leaving early, by cancellation or `aclose`, closes the connection to the provider.
        Errors: ModelCallError.
        """
        if "anthropic" not in sys.modules:
            await asyncio.to_thread(load_sdk)
        deadline = asyncio.get_running_loop().time() + self._answer_timeout_s
        async with AsyncExitStack() as stack:
            response = await self._send(request, stack, deadline=deadline)
            reading = AnswerReading(response, request, deadline=deadline)
            async with aclosing(reading.events()) as events:
                async for event in events:
                    yield event
        yield await reading.ended()

    async def count_tokens(self, request: ModelRequest) -> object:
        """Return what the provider counts of the prompt; a gateway may answer anything.

        Errors: ModelCallError; soon, since a model call waits for it.
        """
        if "anthropic" not in sys.modules:
            await asyncio.to_thread(load_sdk)
        import anthropic  # noqa: PLC0415 -- see load_sdk

        deadline = asyncio.get_running_loop().time() + _COUNT_TIMEOUT_S
        async with AsyncExitStack() as stack:
            sending = self._client.messages.with_streaming_response.count_tokens(
                model=request.model,
                system=request.system,
                messages=request.messages,
                tools=request.tools or anthropic.omit,
                thinking=request.thinking or anthropic.omit,
                output_config=request.output or anthropic.omit,
            )
            response = await self._opened(sending, request, stack, deadline=deadline)
            said = await read_json(response, deadline=deadline)
        return said.get("input_tokens") if isinstance(said, dict) else None

    async def _send(
        self, request: ModelRequest, stack: AsyncExitStack, *, deadline: float
    ) -> httpx2.Response:
        """Return the response, its body unread. Leaving `stack` closes it."""
        import anthropic  # noqa: PLC0415 -- see load_sdk

        sending = self._client.messages.with_streaming_response.create(
            model=request.model,
            system=request.system,
            messages=request.messages,
            tools=request.tools or anthropic.omit,
            max_tokens=request.max_tokens,
            thinking=request.thinking or anthropic.omit,
            output_config=request.output or anthropic.omit,
            stop_sequences=list(request.stop_sequences) or anthropic.omit,
            extra_body=dict(request.sampling) or None,
            stream=True,
        )
        return await self._opened(sending, request, stack, deadline=deadline)

    async def _opened(
        self,
        sending: "AbstractAsyncContextManager[AsyncAPIResponse[Any]]",
        request: ModelRequest,
        stack: AsyncExitStack,
        *,
        deadline: float,
    ) -> httpx2.Response:
        import anthropic  # noqa: PLC0415 -- see load_sdk

        READER.set(request.read)
        try:
            async with asyncio.timeout_at(deadline):
                response = await stack.enter_async_context(sending)
        except _ErrorResponse as answer:
            raise answer.failure(request) from None
        except TimeoutError:
            raise runaway() from None
        except (anthropic.APIError, httpx2.HTTPError) as error:
            if isinstance(error.__cause__, ContentUnavailableError):
                # The provider has not got the whole request.
                lost = error.__cause__.lost
                raise ModelCallError(
                    FailureKind.FILES_UNAVAILABLE, retryable=True, lost_file=lost
                ) from None
            if isinstance(error.__cause__ or error, _NEVER_SENT):
                raise ModelCallError(FailureKind.UNREACHABLE, retryable=True) from None
            # The provider may have counted it.
            raise broken_stream() from None
        return response.http_response

    async def close(self) -> None:
        """Close all connections."""
        if "_client" in vars(self):
            await self._client.close()

    @cached_property
    def _client(self) -> "anthropic.AsyncAnthropic":
        import anthropic  # noqa: PLC0415 -- see load_sdk

        http_client = anthropic.DefaultAsyncHttpxClient(
            timeout=self._timeout,
            limits=self._limits,
            # A redirect would take the conversation and the key wherever it leads.
            follow_redirects=False,
        )
        isolate_requests(http_client)
        return anthropic.AsyncAnthropic(
            api_key=self._api_key,
            base_url=self._base_url,
            max_retries=0,
            timeout=self._timeout,
            middleware=[self._raise_errors, stream_files],
            # Compression would only delay the pieces of a stream.
            default_headers={"Accept-Encoding": "identity"},
            http_client=http_client,
        )

    async def _raise_errors(
        self, request: "APIRequest", call_next: "AsyncCallNext"
    ) -> "AsyncAPIResponse[Any]":
        """Read the body of an error response within bounds; the SDK would read all of it."""
        response = await call_next(request)
        answer = response.http_response
        if answer.is_success:
            return response
        deadline = asyncio.get_running_loop().time() + _ERROR_TIMEOUT_S
        try:
            raise _ErrorResponse(answer, await read_json(answer, deadline=deadline))
        finally:
            await answer.aclose()


class _ErrorResponse(Exception):  # noqa: N818 -- what it is, is decided by whom it is raised for
    def __init__(self, response: httpx2.Response, body: object) -> None:
        super().__init__(response.status_code)
        self._response, self._body = response, body

    def failure(self, request: ModelRequest) -> ModelCallError:
        return provider_error(
            self._response.status_code,
            self._body,
            self._response.headers,
            tool_names=[tool["name"] for tool in request.tools],
        )


class AnswerReading:
    """One answer while it is being read."""

    def __init__(
        self, response: httpx2.Response, request: ModelRequest, *, deadline: float
    ) -> None:
        self._response, self._request = response, request
        sent_bytes = int(response.request.headers.get("content-length", 0))
        self._assembly = MessageAssembly(
            sent_bytes=sent_bytes, max_tokens=max(request.max_tokens, request.longest)
        )
        self._body = BodyReader(
            response, max_bytes=max_answer_bytes(request.max_tokens), deadline=deadline
        )
        self._found = AnswerEvents()
        self._read_bytes = 0
        self._is_announced = False
        self._refusal: ModelCallError | None = None
        self._breach: ModelCallError | None = None

    async def events(self) -> AsyncGenerator[ModelEvent, None]:
        """Yield the answer's events as far as it can be read; those of a piece are joined."""
        async with aclosing(self._body.pieces()) as pieces:
            async for piece in pieces:
                self._read_bytes += len(piece)
                for event in self._take(self._found.feed(piece)):
                    yield event
                if self._refusal or self._breach:
                    return
                if self._assembly.is_stopped:
                    self._body.hurry()
                    async for _ in pieces:
                        pass
                    return
        if self._body.failure is None:
            for event in self._take(self._found.end()):
                yield event

    def _take(self, events: Iterable[dict[str, Any]]) -> list[ModelEvent]:
        said: list[Said] = []
        try:
            for event in events:
                if event["type"] == "error" and not self._assembly.is_stopped:
                    self._refusal = self._refused(event)
                    break
                said.append(self._assembly.take(event))
        except ModelCallError as error:
            self._breach = error
        return self._seen(Said.joined(said))

    def _refused(self, event: dict[str, Any]) -> ModelCallError:
        # An error in mid-stream comes under the status 200 of its stream.
        names = [tool["name"] for tool in self._request.tools]
        return provider_error(200, event, self._response.headers, tool_names=names)

    def _seen(self, said: Said) -> list[ModelEvent]:
        seen: list[ModelEvent] = []
        if self._assembly.has_started and not self._is_announced:
            self._is_announced = True
            seen.append(AnswerStarted(self._assembly.usage))
        if said.thought:
            seen.append(ThoughtArrived(said.thought))
        if said.text:
            seen.append(TextArrived(said.text))
        return seen

    async def ended(self) -> AnswerEnded:
        """Return the whole answer.

        A stop reason makes it whole: what is missing behind it says nothing, and asking again
        would cost the same again.
        Errors: ModelCallError.
        """
        assembly = self._assembly
        if self._refusal is not None:
            raise self._refusal
        if not assembly.is_whole:
            raise self._breach or self._body.failure or broken_stream()
        if self._read_bytes <= _ASSEMBLED_AT_ONCE:
            blocks = assembly.blocks()
        else:
            blocks = await asyncio.to_thread(assembly.blocks)
        return AnswerEnded(
            blocks=blocks,
            stop_reason=assembly.stop_reason,
            usage=assembly.usage,
            unreadable=frozenset(assembly.unreadable),
            usage_estimated=assembly.usage_estimated,
        )


def load_sdk() -> None:
    """Import the provider's SDK: 3,000 modules, a second of CPU.

    Workers that call a model in every turn do so before they take one; others with their first
    call.
    """
    import anthropic  # noqa: F401, PLC0415 -- see above
