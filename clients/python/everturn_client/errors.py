"""Errors of the client, one class for each thing that a program would handle differently.

EverturnError
├── APIConnectionError          no response: refused, dropped or timed out
│   └── APITimeoutError
├── StreamInterruptedError      a turn goes on, but its stream could not be resumed in time
├── TurnFailedError             the turn that was awaited has failed
├── UnexpectedResponseError     the response is not one of this API
└── APIStatusError              the API refused the request
    ├── BadRequestError             400
    ├── AuthenticationError         401
    │   └── SessionExpiredError     the refresh token was refused, too
    ├── BudgetExceededError         402
    ├── PermissionDeniedError       403
    ├── NotFoundError               404
    ├── ConflictError               409
    │   ├── TurnInProgressError
    │   └── IdempotencyConflictError
    ├── PreconditionFailedError     412: the resource has another version
    ├── PayloadTooLargeError        413
    ├── RateLimitError              429
    └── ServerError                 5xx
        ├── ModelRejectedError          502: the provider refuses the request for good
        ├── ModelUnavailableError       502
        └── ServiceUnavailableError     503
"""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2


class EverturnError(Exception):
    """Any error that this client raises about the API."""


class APIConnectionError(EverturnError):
    """The request got no response."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"Can't reach {url}: {reason}")
        self.url = url


class APITimeoutError(APIConnectionError):
    """The response took longer than the timeout."""


class StreamInterruptedError(EverturnError):
    """The turn continues on the server; `client.turns.events(error.turn_id)` resumes it later."""

    def __init__(self, turn_id: str) -> None:
        super().__init__(f"The stream of turn {turn_id} was interrupted and could not be resumed.")
        self.turn_id = turn_id


class TurnFailedError(EverturnError):
    """The turn failed. `code` is one of the API's error codes."""

    def __init__(self, message: str, *, code: str, retryable: bool, turn_id: str) -> None:
        super().__init__(f"{message} ({code})")
        self.message = message
        self.code = code
        self.retryable = retryable
        self.turn_id = turn_id


class UnexpectedResponseError(EverturnError):
    """The response can't be read: an incompatible server, or something between it and here."""

    def __init__(self, what: str) -> None:
        super().__init__(f"The server sent {what} that this client can't read.")


class APIStatusError(EverturnError):
    """The API answered with an error.

    Shapes: `details` lists the fields that were refused, each with `path` and `message`, or is
    an object that tells more; `turn_id` is that of the turn, if a turn failed.
    Units: `retry_after_s` is in seconds, None where the API names no time.
    """

    def __init__(
        self,
        message: str,
        *,
        status_code: int,
        code: str,
        details: Any = None,  # noqa: ANN401 -- any JSON
        retryable: bool = False,
        request_id: str | None = None,
        turn_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{_sentence(message, details)} ({code})")
        self.message = message
        self.status_code = status_code
        self.code = code
        self.details = details
        self.retryable = retryable
        self.request_id = request_id
        self.turn_id = turn_id
        self.retry_after_s = retry_after_s


class BadRequestError(APIStatusError):
    """An input is invalid; `details` says which."""


class AuthenticationError(APIStatusError):
    """The credentials are missing, wrong or no longer valid."""


class SessionExpiredError(AuthenticationError):
    """The access token has expired and can't be refreshed: sign in again."""


class BudgetExceededError(APIStatusError):
    """A budget is used up. `details` has its `scope`, `unit` and `window`, and `resetsAt`."""


class PermissionDeniedError(APIStatusError):
    """The resource belongs to someone else, or a permission is missing."""


class NotFoundError(APIStatusError):
    """The resource does not exist."""


class ConflictError(APIStatusError):
    """The request conflicts with the current state."""


class TurnInProgressError(ConflictError):
    """A turn is already in progress in this chat."""


class IdempotencyConflictError(ConflictError):
    """The idempotency key was already used for a different request."""


class PreconditionFailedError(APIStatusError):
    """The resource has changed: `version` is not its current one."""


class PayloadTooLargeError(APIStatusError):
    """The request, or what it asks for, is too large."""


class RateLimitError(APIStatusError):
    """Too many requests."""


class ServerError(APIStatusError):
    """The API, or something that it needs, failed."""


class ModelRejectedError(ServerError):
    """The model provider rejected the request; retrying doesn't help."""


class ModelUnavailableError(ServerError):
    """The model is unavailable."""


class ServiceUnavailableError(ServerError):
    """The API is temporarily unavailable."""


_BY_CODE: dict[str, type[APIStatusError]] = {
    "TURN_IN_PROGRESS": TurnInProgressError,
    "IDEMPOTENCY_CONFLICT": IdempotencyConflictError,
    "MODEL_REJECTED": ModelRejectedError,
}
_BY_STATUS: dict[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    402: BudgetExceededError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    412: PreconditionFailedError,
    413: PayloadTooLargeError,
    429: RateLimitError,
    502: ModelUnavailableError,
    503: ServiceUnavailableError,
}


def error_from_response(response: httpx2.Response) -> APIStatusError:
    """Return the error that a response carries; its body must have been read.

    Responses of something else (a proxy, for example) get a code of their status: `HTTP_504`.
    """
    status = response.status_code
    body = _object(response)
    error = body.get("error")
    fields = error if isinstance(error, dict) else {}
    code = str(fields.get("code") or f"HTTP_{status}")
    default = ServerError if status >= 500 else APIStatusError
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status, default)
    meta = body.get("meta")
    named = meta.get("requestId") if isinstance(meta, dict) else None
    return kind(
        str(fields.get("message") or response.reason_phrase or "The request failed."),
        status_code=status,
        code=code,
        details=fields.get("details"),
        retryable=bool(fields.get("retryable", status in {408, 429, 502, 503, 504})),
        request_id=named or response.headers.get("X-Request-Id"),
        turn_id=fields.get("turnId"),
        retry_after_s=_retry_after_s(response.headers.get("Retry-After", "")),
    )


def error_from_transport(error: httpx2.RequestError, url: str) -> APIConnectionError:
    """Return the error of a request that got no response."""
    is_timeout = isinstance(error, httpx2.TimeoutException)
    reason = str(error) or type(error).__name__
    return APITimeoutError(url, "timed out") if is_timeout else APIConnectionError(url, reason)


def _object(response: httpx2.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _sentence(message: str, details: object) -> str:
    """Return the message, followed by the refused fields that it does not name itself."""
    refused = [
        f"{detail.get('path', '')}: {detail['message']}"
        for detail in (details if isinstance(details, list) else [])
        if isinstance(detail, dict) and str(detail.get("message", "")) not in message
    ]
    return f"{message.rstrip('.')}: {', '.join(refused)}" if refused else message


def _retry_after_s(text: str) -> float | None:
    """Return the seconds that a `Retry-After` asks for, given as such or as a date.

    Source: RFC 9110, section 10.2.3.
    """
    if text.isascii() and text.strip().isdecimal():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
