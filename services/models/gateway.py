"""The call of a model: the request and its streamed answer, of Anthropic's Messages API.

The request is what the official SDK would send, and the answer is read within bounds: the SDK would
cost a process 40 MB and a second of CPU. Nothing is retried here: that belongs to Temporal.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
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
from services.models.request_bodies import ContentReader, ContentUnavailableError, encoded_body
from services.outgoing.providers import isolate_requests
from services.outgoing.transport import tls_context

if TYPE_CHECKING:
    # At run time it would import the whole SDK.
    from anthropic.types import (
        MessageParam,
        OutputConfigParam,
        TextBlockParam,
        ThinkingConfigParam,
        ToolParam,
    )

_ANTHROPIC: Final = "https://api.anthropic.com"
_VERSION: Final = "2026-10-21"
"""Of the API: what the installed SDK asks for. A test compares them."""

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
    `sampling` are parameters that older models and other servers take.
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

    Proxies and `ANTHROPIC_CUSTOM_HEADERS`, a header a line, come from the environment.
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
        self._headers = _headers(api_key)
        self._base_url = base_url or os.environ.get("ANTHROPIC_BASE_URL") or _ANTHROPIC
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
        deadline = asyncio.get_running_loop().time() + self._answer_timeout_s
        asked = {**_prompt(request), "max_tokens": request.max_tokens, "stream": True}
        if request.stop_sequences:
            asked["stop_sequences"] = list(request.stop_sequences)
        asked |= request.sampling
        async with self._opened("v1/messages", asked, request, deadline=deadline) as response:
            reading = AnswerReading(response, request, deadline=deadline)
            async with aclosing(reading.events()) as events:
                async for event in events:
                    yield event
        yield await reading.ended()

    async def count_tokens(self, request: ModelRequest) -> object:
        """Return what the provider counts of the prompt; a gateway may answer anything.

        Errors: ModelCallError; soon, since a model call waits for it.
        """
        deadline = asyncio.get_running_loop().time() + _COUNT_TIMEOUT_S
        path, prompt = "v1/messages/count_tokens", _prompt(request)
        async with self._opened(path, prompt, request, deadline=deadline) as response:
            said = await read_json(response, deadline=deadline)
        return said.get("input_tokens") if isinstance(said, dict) else None

    @asynccontextmanager
    async def _opened(
        self, path: str, body: Mapping[str, Any], request: ModelRequest, *, deadline: float
    ) -> AsyncIterator[httpx2.Response]:
        """Send `body` and yield the successful response, its own body unread; close it behind."""
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout_at(deadline):
                    sent = self._request(path, body, request.read)
                    response = await self._client.send(sent, stream=True)
                    stack.push_async_callback(response.aclose)
                    if not response.is_success:
                        raise await _refusal(response, request)
            except TimeoutError:
                raise runaway() from None
            except ContentUnavailableError as error:
                # The provider has not got the whole request.
                raise ModelCallError(
                    FailureKind.FILES_UNAVAILABLE, retryable=True, lost_file=error.lost
                ) from None
            except _NEVER_SENT:
                raise ModelCallError(FailureKind.UNREACHABLE, retryable=True) from None
            except httpx2.HTTPError:
                # The provider may have counted it.
                raise broken_stream() from None
            yield response

    def _request(
        self, path: str, body: Mapping[str, Any], read: ContentReader | None
    ) -> httpx2.Request:
        content, length = encoded_body(body, read)
        url = self._url.copy_with(raw_path=self._url.raw_path + path.encode())
        # TLS libraries refuse a name with an underscore, which containers may have.
        extensions = {"sni_hostname": url.host.replace("_", "-")} if "_" in url.host else None
        return self._client.build_request(
            "POST",
            url,
            content=content,
            headers={"Content-Length": str(length)},
            extensions=extensions,
        )

    async def close(self) -> None:
        """Close all connections."""
        if "_client" in vars(self):
            await self._client.aclose()

    @cached_property
    def _url(self) -> httpx2.URL:
        url = httpx2.URL(self._base_url)
        return url.copy_with(raw_path=url.raw_path.removesuffix(b"/") + b"/")

    @cached_property
    def _client(self) -> httpx2.AsyncClient:
        client = httpx2.AsyncClient(
            headers=self._headers,
            timeout=self._timeout,
            limits=self._limits,
            verify=tls_context(),
            # A redirect would take the conversation and the key wherever it leads.
            follow_redirects=False,
        )
        isolate_requests(client)
        return client


def _headers(api_key: str) -> httpx2.Headers:
    """Return the headers of each request; those from the environment replace the usual ones."""
    headers = httpx2.Headers(
        {
            "Accept": "application/json",
            "Content-Type": "application/json",
            "User-Agent": "Everturn",
            "Authorization": f"Bearer {api_key}",
            "anthropic-version": _VERSION,
        },
        encoding="utf-8",
    )
    for line in os.environ.get("ANTHROPIC_CUSTOM_HEADERS", "").split("\n"):
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip()] = value.strip()
    # Compression would only delay the pieces of a stream.
    headers["Accept-Encoding"] = "identity"
    return headers


def _prompt(request: ModelRequest) -> dict[str, Any]:
    """Return the fields that have tokens, or change how many; what is empty is left out."""
    prompt: dict[str, Any] = {
        "model": request.model,
        "system": request.system,
        "messages": request.messages,
    }
    options = {
        "tools": request.tools,
        "thinking": request.thinking,
        "output_config": request.output,
    }
    return prompt | {name: option for name, option in options.items() if option}


async def _refusal(response: httpx2.Response, request: ModelRequest) -> ModelCallError:
    """Return the failure that an error response means, its body read within bounds."""
    deadline = asyncio.get_running_loop().time() + _ERROR_TIMEOUT_S
    return provider_error(
        response.status_code,
        await read_json(response, deadline=deadline),
        response.headers,
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
