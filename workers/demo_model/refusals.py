"""Owns refusals: the status, the error type and the body of a request that gets no answer."""

import math
from dataclasses import dataclass
from typing import Any

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request gets no answer, as the Messages API says it.

    Source: https://platform.claude.com/docs/en/api/errors
    """

    status: int
    message: str
    retry_after_s: float | None = None

    def as_json(self, request_id: str) -> dict[str, Any]:
        """Return the body of the response, which is also the data of an `error` event."""
        return {
            "type": "error",
            "error": {"type": self.error_type, "message": self.message},
            "request_id": request_id,
        }

    @property
    def error_type(self) -> str:
        """The name that the status has in an error's body."""
        return _ERROR_TYPES.get(
            self.status, "invalid_request_error" if self.status < 500 else "api_error"
        )

    @property
    def headers(self) -> dict[str, str]:
        """The headers that go with the refusal."""
        if self.retry_after_s is None:
            return {}
        return {"retry-after": _number(self.retry_after_s)}


def _number(seconds: float) -> str:
    """Write whole seconds without a fraction, as the header's standard asks."""
    whole = math.trunc(seconds)
    return str(whole if whole == seconds else seconds)
