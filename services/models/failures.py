"""Why a model call failed: by HTTP status, by the provider's type of error, by its message.

    ModelCallError    the call failed; says whether the same call may work later, and when

A provider's words decide the kind, and are kept nowhere.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from schema.errors import ErrorCode
from services.retry_after import wait_asked_for

_RETRYABLE_STATUSES: Final = frozenset({408, 409, 425, 429})
# An error within a stream of any other type may pass: the same call may work later.
_FINAL_TYPES: Final = frozenset(
    {
        "authentication_error",
        "billing_error",
        "invalid_request_error",
        "not_found_error",
        "permission_error",
        "request_too_large",
    }
)

# Long enough for every sentence of interest; a hostile one must not be searched for long.
_SEARCHED_CHARS: Final = 4_000

# Sentences of Anthropic, Bedrock, Vertex AI, vLLM, LiteLLM and llama.cpp.
_TOO_LONG: Final = re.compile(
    r"prompt is too long|exceeds? (the )?(available )?context|context.length.exceeded"
    r"|maximum context length|input is too long|input length and .{0,20} exceed",
    re.IGNORECASE,
)
_TOOL_NUMBER: Final = re.compile(r"\btools?(?:\.|\[|/|\", ?|', ?)(\d{1,4})\b")
_TOOLS: Final = re.compile(
    r"^tools?\b\s?[:.\[]|\binput_?schema\b|\btool (names?|definitions?|schemas?)\b"
    r"|invalid schema for (function|tool)\b",
    re.IGNORECASE,
)


class Refusable(StrEnum):
    """A part of a request that may be left out where its provider refuses it."""

    STRUCTURED = "structured"
    THINKING = "thinking"
    EARLIER_THINKING = "earlier_thinking"
    SAMPLING = "sampling"


# In this order: `thinking` stands in what is said of its blocks, too.
_WORDS_OF_OPTIONS: Final = {
    Refusable.STRUCTURED: (
        r"output_config\.format|output_format|response_format|json_schema|structured.?output"
    ),
    Refusable.EARLIER_THINKING: (
        r"in `?thinking`? block|`?thinking`? or `?redacted_thinking`?|different conversation"
        r"|invalid .{0,2}signature"
    ),
    Refusable.THINKING: r"\bthinking\b|\bbudget_tokens\b|\beffort\b|\boutput_config\b",
    Refusable.SAMPLING: r"\btemperature\b|\btop_[pk]\b",
}
_OPTION: Final = tuple(
    (part, re.compile(words, re.IGNORECASE)) for part, words in _WORDS_OF_OPTIONS.items()
)


class FailureKind(StrEnum):
    """Why a model call failed."""

    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    CREDENTIALS = "credentials"
    TOO_LARGE = "too_large"
    TOOLS_REFUSED = "tools_refused"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    BROKEN_STREAM = "broken_stream"
    RUNAWAY = "runaway"
    FILES_UNAVAILABLE = "files_unavailable"


_MAY_LACK_OPTIONS: Final = frozenset({FailureKind.REFUSED, FailureKind.TOOLS_REFUSED})

_WORDS: Final = {
    FailureKind.RATE_LIMITED: "The model provider's rate limit was reached.",
    FailureKind.OVERLOADED: "The model provider is overloaded or failing.",
    FailureKind.CREDENTIALS: (
        "The model provider rejected the API key. The operator must check ANTHROPIC_API_KEY."
    ),
    FailureKind.TOO_LARGE: "The conversation is too large for the model.",
    FailureKind.TOOLS_REFUSED: "The model provider rejected the definition of a tool.",
    FailureKind.REFUSED: "The model provider rejected the request.",
    FailureKind.UNREACHABLE: "The model provider can't be reached.",
    FailureKind.BROKEN_STREAM: "The model's answer was interrupted.",
    FailureKind.RUNAWAY: "The model's answer exceeded the limit for its size or time.",
    FailureKind.FILES_UNAVAILABLE: "The attached files can't be read right now.",
}


class ModelCallError(Exception):
    """A model call failed. Its text holds nothing that a person or a model wrote.

    `exhausted` says that the same model must not be called again for this step.
    `refused_tool_index` is the position in the request of a tool that the provider refuses, where
    it names one; `refused_option` is another part of the request that it names; `lost_file` is an
    attached file whose content is gone.
    """

    def __init__(
        self,
        kind: FailureKind,
        *,
        retryable: bool,
        status: int | None = None,
        retry_after: timedelta | None = None,
        refused_tool_index: int | None = None,
        refused_option: Refusable | None = None,
        lost_file: UUID | None = None,
    ) -> None:
        super().__init__(_WORDS[kind] + (f" (HTTP {status})" if status else ""))
        self.kind = kind
        self.retryable = retryable
        self.retry_after = retry_after
        self.refused_tool_index = refused_tool_index
        self.refused_option = refused_option
        self.lost_file = lost_file
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
        if self.kind is FailureKind.FILES_UNAVAILABLE:
            return ErrorCode.SERVICE_UNAVAILABLE
        return ErrorCode.MODEL_UNAVAILABLE if self.retryable else ErrorCode.MODEL_REJECTED

    @property
    def was_answering(self) -> bool:
        """Whether the provider may have accepted the request, so that it costs something."""
        return self.kind in {FailureKind.BROKEN_STREAM, FailureKind.RUNAWAY}


def broken_stream() -> ModelCallError:
    """Return the failure of an answer that never came, broke off, or can't be read."""
    return ModelCallError(FailureKind.BROKEN_STREAM, retryable=True)


def runaway() -> ModelCallError:
    """Return the failure of an answer beyond what it may have of bytes or time."""
    return ModelCallError(FailureKind.RUNAWAY, retryable=True)


def provider_error(
    status: int, body: object, headers: Mapping[str, str], *, tool_names: Sequence[str] = ()
) -> ModelCallError:
    """Return the failure that an error response means, or an error within a stream (status 200).

    `tool_names` are those of the request, in order: some gateways name a tool, not its position.
    """
    error_type, message, code = _said(body)
    in_stream = status == 200
    if in_stream and 400 <= code <= 599:
        # A gateway's error within a stream may carry the status that it came too late for.
        status = code
    kind = _kind_of(status, error_type, message)
    return ModelCallError(
        kind,
        retryable=_is_retryable(status, kind),
        status=None if in_stream else status,
        retry_after=wait_asked_for(headers, if_over=timedelta()),
        refused_tool_index=(
            _tool_index(message, tool_names) if kind is FailureKind.TOOLS_REFUSED else None
        ),
        refused_option=_option(message) if kind in _MAY_LACK_OPTIONS else None,
    )


def _option(message: str) -> Refusable | None:
    return next((part for part, words in _OPTION if words.search(message)), None)


def _said(body: object) -> tuple[str, str, int]:
    """Return the type, message and code of an error, whatever its shape."""
    error: Any = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return "", str(error)[:_SEARCHED_CHARS] if isinstance(error, str) else "", 0
    error_type, message, code = error.get("type"), error.get("message"), error.get("code")
    return (
        error_type if isinstance(error_type, str) else "",
        message[:_SEARCHED_CHARS] if isinstance(message, str) else "",
        code if isinstance(code, int) else 0,
    )


def _kind_of(status: int, error_type: str, message: str) -> FailureKind:
    if status == 429 or error_type == "rate_limit_error":
        return FailureKind.RATE_LIMITED
    if status in {401, 403} or error_type in {"authentication_error", "permission_error"}:
        return FailureKind.CREDENTIALS
    if status == 413 or error_type == "request_too_large":
        return FailureKind.TOO_LARGE
    if status in {400, 422} or error_type == "invalid_request_error":
        return _kind_of_invalid(message)
    if status >= 500 or (status == 200 and error_type not in _FINAL_TYPES):
        return FailureKind.OVERLOADED
    return FailureKind.REFUSED


def _kind_of_invalid(message: str) -> FailureKind:
    if _TOO_LONG.search(message):
        return FailureKind.TOO_LARGE
    if _TOOL_NUMBER.search(message) or _TOOLS.search(message):
        return FailureKind.TOOLS_REFUSED
    return FailureKind.REFUSED


def _is_retryable(status: int, kind: FailureKind) -> bool:
    if status == 200:
        return kind in {FailureKind.OVERLOADED, FailureKind.RATE_LIMITED}
    return status >= 500 or status in _RETRYABLE_STATUSES


def _tool_index(message: str, tool_names: Sequence[str]) -> int | None:
    if numbered := _TOOL_NUMBER.search(message):
        index = int(numbered[1])
        return index if index < len(tool_names) else None
    named = [
        index
        for index, name in enumerate(tool_names)
        if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", message)
    ]
    return named[0] if len(named) == 1 else None
