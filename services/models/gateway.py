"""The call of a model: the request and its streamed answer.

The SDK's own retries are off: retrying belongs to Temporal.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import httpx2

from schema.usage import TokenUsage
from services.models.assembly import MessageAssembly
from services.models.failures import (
    FailureKind,
    ModelCallError,
    broken_stream,
    provider_error,
)

if TYPE_CHECKING:
    import anthropic
    from anthropic.types import (
        MessageParam,
        OutputConfigParam,
        RawMessageStreamEvent,
        TextBlockParam,
        ThinkingConfigParam,
        ToolParam,
    )

# Raised while reading an invalid answer: half an event, a missing field.
_NOT_THE_MESSAGES_API: Final = (AttributeError, LookupError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """What to ask the model, in the Messages API's own shapes.

    Without `thinking` the model's default applies; its thinking counts towards `max_tokens`.
    """

    model: str
    system: "list[TextBlockParam]"
    messages: "list[MessageParam]"
    tools: "list[ToolParam]"
    max_tokens: int
    thinking: "ThinkingConfigParam | None" = None
    output: "OutputConfigParam | None" = None


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
    """The model is thinking; only the length of its thoughts is passed on."""

    chars: int


@dataclass(frozen=True, slots=True)
class AnswerEnded:
    """The answer is complete; `unreadable` are the ids of tool calls with an invalid input."""

    blocks: list[dict[str, Any]]
    stop_reason: str
    usage: TokenUsage
    unreadable: frozenset[str] = frozenset()


ModelEvent: TypeAlias = AnswerStarted | TextArrived | ThoughtArrived | AnswerEnded


class ModelGateway:
    """Calls Anthropic's Messages API, or a compatible server at `base_url`.

    Units: `idle_timeout_s` is the longest silence within an answer, in seconds.
    """

    def __init__(
        self, *, api_key: str, base_url: str | None, idle_timeout_s: float, connections: int
    ) -> None:
        self._api_key, self._base_url = api_key, base_url
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
        import anthropic  # noqa: PLC0415 -- see load_sdk

        assembly = MessageAssembly()
        try:
            stream = await self._client.messages.create(
                model=request.model,
                system=request.system,
                messages=request.messages,
                tools=request.tools or anthropic.omit,
                max_tokens=request.max_tokens,
                thinking=request.thinking or anthropic.omit,
                output_config=request.output or anthropic.omit,
                stream=True,
            )
            try:
                async for event in stream:
                    for seen in _events_in(event, assembly):
                        yield seen
            finally:
                await stream.close()
        except anthropic.APIError as error:
            raise _classified(error, request) from None
        except httpx2.HTTPError:
            raise broken_stream() from None
        except _NOT_THE_MESSAGES_API:
            raise broken_stream() from None
        if not assembly.is_whole:
            raise broken_stream()
        yield AnswerEnded(
            blocks=assembly.blocks(),
            stop_reason=assembly.stop_reason,
            usage=assembly.usage,
            unreadable=frozenset(assembly.unreadable),
        )

    async def close(self) -> None:
        """Close all connections."""
        if "_client" in vars(self):
            await self._client.close()

    @cached_property
    def _client(self) -> "anthropic.AsyncAnthropic":
        import anthropic  # noqa: PLC0415 -- see load_sdk

        return anthropic.AsyncAnthropic(
            api_key=self._api_key,
            base_url=self._base_url,
            max_retries=0,
            timeout=self._timeout,
            http_client=anthropic.DefaultAsyncHttpxClient(
                timeout=self._timeout, limits=self._limits
            ),
        )


def load_sdk() -> None:
    """Import the provider's SDK: 3,000 modules, a second of CPU.

    Workers that call a model in every turn do so before they take one; others with their first
    call.
    """
    import anthropic  # noqa: F401, PLC0415 -- see above


def _events_in(event: "RawMessageStreamEvent", assembly: MessageAssembly) -> list[ModelEvent]:
    text = assembly.take(event)
    if event.type == "message_start":
        return [AnswerStarted(assembly.usage)]
    if event.type == "content_block_delta" and event.delta.type == "thinking_delta":
        return [ThoughtArrived(len(event.delta.thinking))]
    return [TextArrived(text)] if text else []


def _classified(error: "anthropic.APIError", request: ModelRequest) -> ModelCallError:
    import anthropic  # noqa: PLC0415 -- see load_sdk

    if isinstance(error, anthropic.APIStatusError):
        return provider_error(
            error.status_code,
            error.body,
            error.response.headers,
            tool_names=[tool["name"] for tool in request.tools],
        )
    # The request may have reached the provider: with the answer under way it is a broken stream.
    return ModelCallError(FailureKind.UNREACHABLE, retryable=True)
