"""Error codes: one enum for the whole system, with the HTTP status and the message of each.

Exceptions live beside the code that raises them; this is the vocabulary that crosses boundaries:
HTTP bodies, `error` events, turn rows and workflow failures. Messages that
services compose are here, too; all other messages of refusals are in `api/error_messages.py`.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class ErrorCode(StrEnum):
    """What went wrong, for a program to branch on."""

    VALIDATION_ERROR = "VALIDATION_ERROR"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    BUDGET_EXCEEDED = "BUDGET_EXCEEDED"
    FORBIDDEN = "FORBIDDEN"
    EMAIL_NOT_VERIFIED = "EMAIL_NOT_VERIFIED"
    NOT_FOUND = "NOT_FOUND"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    CONFLICT = "CONFLICT"
    TURN_IN_PROGRESS = "TURN_IN_PROGRESS"
    IDEMPOTENCY_CONFLICT = "IDEMPOTENCY_CONFLICT"
    PRECONDITION_FAILED = "PRECONDITION_FAILED"
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"
    URI_TOO_LONG = "URI_TOO_LONG"
    HEADERS_TOO_LARGE = "HEADERS_TOO_LARGE"
    REQUEST_TIMEOUT = "REQUEST_TIMEOUT"
    RATE_LIMITED = "RATE_LIMITED"
    MAX_STEPS_EXCEEDED = "MAX_STEPS_EXCEEDED"
    MODEL_REJECTED = "MODEL_REJECTED"
    MODEL_UNAVAILABLE = "MODEL_UNAVAILABLE"
    SERVICE_UNAVAILABLE = "SERVICE_UNAVAILABLE"
    INTERNAL = "INTERNAL"


HTTP_STATUS: Final[Mapping[ErrorCode, int]] = {
    ErrorCode.VALIDATION_ERROR: 400,
    ErrorCode.UNAUTHENTICATED: 401,
    ErrorCode.BUDGET_EXCEEDED: 402,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.EMAIL_NOT_VERIFIED: 403,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.METHOD_NOT_ALLOWED: 405,
    ErrorCode.CONFLICT: 409,
    ErrorCode.TURN_IN_PROGRESS: 409,
    ErrorCode.IDEMPOTENCY_CONFLICT: 409,
    ErrorCode.PRECONDITION_FAILED: 412,
    ErrorCode.PAYLOAD_TOO_LARGE: 413,
    ErrorCode.URI_TOO_LONG: 414,
    ErrorCode.HEADERS_TOO_LARGE: 431,
    ErrorCode.REQUEST_TIMEOUT: 408,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.MAX_STEPS_EXCEEDED: 500,
    ErrorCode.MODEL_REJECTED: 502,
    ErrorCode.MODEL_UNAVAILABLE: 502,
    ErrorCode.SERVICE_UNAVAILABLE: 503,
    ErrorCode.INTERNAL: 500,
}

RETRYABLE: Final = frozenset(
    {
        ErrorCode.TURN_IN_PROGRESS,
        ErrorCode.REQUEST_TIMEOUT,
        ErrorCode.RATE_LIMITED,
        ErrorCode.MODEL_UNAVAILABLE,
        ErrorCode.SERVICE_UNAVAILABLE,
    }
)
"""The codes with which the same request may succeed later."""

MESSAGES: Final[Mapping[ErrorCode, str]] = {
    ErrorCode.VALIDATION_ERROR: "Invalid request.",
    ErrorCode.UNAUTHENTICATED: "Missing or invalid access token.",
    ErrorCode.BUDGET_EXCEEDED: "The budget for this period is used up.",
    ErrorCode.FORBIDDEN: "You don't have access to this resource.",
    ErrorCode.EMAIL_NOT_VERIFIED: "Verify your email address first.",
    ErrorCode.NOT_FOUND: "No such endpoint.",
    ErrorCode.METHOD_NOT_ALLOWED: "Method not allowed.",
    ErrorCode.CONFLICT: "The request conflicts with the current state.",
    ErrorCode.TURN_IN_PROGRESS: "A turn is already in progress in this chat.",
    ErrorCode.IDEMPOTENCY_CONFLICT: (
        "This idempotency key was already used for a different request."
    ),
    ErrorCode.PRECONDITION_FAILED: "The resource has changed. Read it again and retry.",
    ErrorCode.PAYLOAD_TOO_LARGE: "The request body is too large.",
    ErrorCode.URI_TOO_LONG: "The URL is too long.",
    ErrorCode.HEADERS_TOO_LARGE: "The request's headers are too large.",
    ErrorCode.REQUEST_TIMEOUT: "The request took too long to arrive.",
    ErrorCode.RATE_LIMITED: "Too many requests. Try again later.",
    ErrorCode.MAX_STEPS_EXCEEDED: "The turn reached its limit of steps.",
    ErrorCode.MODEL_REJECTED: "The model provider rejected the request.",
    ErrorCode.MODEL_UNAVAILABLE: "The model is unavailable. Try again later.",
    ErrorCode.SERVICE_UNAVAILABLE: "The database is unavailable. Try again later.",
    ErrorCode.INTERNAL: "Internal error. Quote the request ID to support.",
}
"""The message of a code unless something more specific is known."""

TURN_MESSAGES: Final[Mapping[ErrorCode, str]] = {
    **MESSAGES,
    ErrorCode.MAX_STEPS_EXCEEDED: (
        "The model kept calling tools or pausing until the limit of steps was reached."
    ),
    ErrorCode.PAYLOAD_TOO_LARGE: "The message is too large for the model.",
    ErrorCode.SERVICE_UNAVAILABLE: "The turn was terminated.",
    ErrorCode.INTERNAL: "Internal error. Quote the turn ID to support.",
}
"""The message of a failed turn unless something more specific is known."""

NO_BUDGET_LEFT: Final = "{} no {} left. It resets on {}."

# Invalid values that only services recognise, e.g. by a stored row or a tool's schema.
NOT_A_MONTH: Final = "Must be a month, e.g. `2026-01`."
NOT_FOR_TRANSPORT: Final = "Not allowed for the transport `{}`."
SECOND_AUTHORIZATION: Final = "Must not contain Authorization together with `oauth`, which sets it."
TOOL_INPUT_INVALID: Final = "The input doesn't match the tool's schema: {}."
INPUT_SCHEMA_UNUSABLE: Final = "The schema {}."
PROMPT_BLANK: Final = "The prompt must not be blank."
PROMPT_TOO_LONG: Final = (
    "The prompt is about {:,} tokens; the limit is {:,} (half the context budget)."
)
UNKNOWN_PLACEHOLDER: Final = "Unknown placeholder {{{}}}. Known placeholders: {}."
