"""The call of a model: the request, the streamed answer, the kinds of failure.

    ModelCallError    the call failed; says whether the same call may work later, and when

The SDK's own retries are off: retrying belongs to Temporal.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import httpx2

from schema.errors import ErrorCode
from schema.usage import TokenUsage
from services.models.assembly import MessageAssembly
from services.retry_after import wait_asked_for

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

_RETRYABLE_STATUSES: Final = frozenset({408, 409, 425, 429})
_RETRYABLE_TYPES: Final = frozenset({"overloaded_error", "api_error", "timeout_error"})
# Raised while reading an invalid answer: half an event, a missing field.
_NOT_THE_MESSAGES_API: Final = (AttributeError, LookupError, TypeError, ValueError)


class FailureKind(StrEnum):
    """Why a model call failed."""

    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    CREDENTIALS = "credentials"
    TOO_LARGE = "too_large"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    BROKEN_STREAM = "broken_stream"


_WORDS: Final = {
    FailureKind.RATE_LIMITED: "The model provider's rate limit was reached.",
    FailureKind.OVERLOADED: "The model provider is overloaded or failing.",
    FailureKind.CREDENTIALS: (
        "The model provider rejected the API key. The operator must check ANTHROPIC_API_KEY."
    ),
    FailureKind.TOO_LARGE: "The conversation is too large for the model.",
    FailureKind.REFUSED: "The model provider rejected the request.",
    FailureKind.UNREACHABLE: "The model provider can't be reached.",
    FailureKind.BROKEN_STREAM: "The model's answer was interrupted.",
}


class ModelCallError(Exception):
    """A model call failed. Its text holds nothing that a person or a model wrote.

    `exhausted` says that the same model must not be called again for this step.
    """

    def __init__(
        self,
        kind: FailureKind,
        *,
        retryable: bool,
        status: int | None = None,
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(_WORDS[kind] + (f" (HTTP {status})" if status else ""))
        self.kind = kind
        self.retryable = retryable
        self.retry_after = retry_after
        self.exhausted = not retryable

    @property
    def sentence(self) -> str:
        """The message for the user who waits for the answer."""
        return _WORDS[self.kind]

    @property
    def code(self) -> ErrorCode:
        """The error code of the turn if no retry and no fallback helps."""
        if self.kind is FailureKind.TOO_LARGE:
            return ErrorCode.PAYLOAD_TOO_LARGE
        return ErrorCode.MODEL_UNAVAILABLE if self.retryable else ErrorCode.MODEL_REJECTED


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
            raise _classified(error) from error
        except httpx2.HTTPError as error:
            raise ModelCallError(FailureKind.BROKEN_STREAM, retryable=True) from error
        except _NOT_THE_MESSAGES_API as error:
            raise ModelCallError(FailureKind.BROKEN_STREAM, retryable=True) from error
        if not assembly.is_whole:
            raise ModelCallError(FailureKind.BROKEN_STREAM, retryable=True)
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


def _classified(error: "anthropic.APIError") -> ModelCallError:
    import anthropic  # noqa: PLC0415 -- see load_sdk

    if isinstance(error, anthropic.APIStatusError):
        return _classified_status(error)
    # The request may have reached the provider: with the answer under way it is a broken stream.
    return ModelCallError(FailureKind.UNREACHABLE, retryable=True)


def _classified_status(error: "anthropic.APIStatusError") -> ModelCallError:
    status = error.status_code
    # An error in mid-stream comes under the status 200 of its stream; its type gives the kind.
    in_stream = status == 200
    kind = _kind_of(status, error.type or "")
    retryable = (
        status >= 500
        or status in _RETRYABLE_STATUSES
        or (in_stream and (error.type in _RETRYABLE_TYPES or error.type == "rate_limit_error"))
    )
    return ModelCallError(
        kind,
        retryable=retryable,
        status=None if in_stream else status,
        retry_after=wait_asked_for(error.response.headers, if_over=timedelta()),
    )


def _kind_of(status: int, error_type: str) -> FailureKind:
    if status == 429 or error_type == "rate_limit_error":
        return FailureKind.RATE_LIMITED
    if status in {401, 403} or error_type in {"authentication_error", "permission_error"}:
        return FailureKind.CREDENTIALS
    if status == 413 or error_type == "request_too_large":
        return FailureKind.TOO_LARGE
    if status >= 500 or error_type in _RETRYABLE_TYPES:
        return FailureKind.OVERLOADED
    return FailureKind.REFUSED
