"""Errors of the HTTP protocol itself: what a client gets whose request reaches no route."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from uuid import uuid4

from api.envelope import ErrorBody, ErrorResponse, Meta
from api.security_headers import SECURITY_HEADERS
from schema.errors import HTTP_STATUS, RETRYABLE, ErrorCode

MOST_HEADERS: Final = 100
LONGEST_URL: Final = 8 * 1024
_BUSY: Final = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a connection is closed."""

    code: ErrorCode
    message: str

    def response(self) -> bytes:
        """Return the response on the wire: a request that wasn't understood reaches no route."""
        request_id = str(uuid4())
        error = ErrorBody(code=self.code, message=self.message, retryable=self.code in RETRYABLE)
        document = ErrorResponse(error=error, meta=Meta(request_id=request_id))
        body = document.model_dump_json(by_alias=True, exclude_none=True).encode()
        status = HTTPStatus(HTTP_STATUS[self.code])
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",
            "X-Request-Id": request_id,
            **SECURITY_HEADERS,
        }
        if status in _BUSY:
            headers["Retry-After"] = "1"
        lines = [
            f"HTTP/1.1 {status.value} {status.phrase}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body


INVALID: Final = Refusal(ErrorCode.VALIDATION_ERROR, "Invalid HTTP request.")
HOST: Final = Refusal(ErrorCode.VALIDATION_ERROR, "Exactly one Host header is required.")
VERSION: Final = Refusal(ErrorCode.VALIDATION_ERROR, "Only HTTP/1.0 and HTTP/1.1 are supported.")
CODING: Final = Refusal(
    ErrorCode.VALIDATION_ERROR, "Only `chunked` is supported as Transfer-Encoding, in HTTP/1.1."
)
FRAMING: Final = Refusal(ErrorCode.VALIDATION_ERROR, "The body's chunks are too small.")
LONG_URL: Final = Refusal(ErrorCode.URI_TOO_LONG, f"URLs are limited to {LONGEST_URL} bytes.")
MANY_HEADERS: Final = Refusal(
    ErrorCode.HEADERS_TOO_LARGE, f"Requests are limited to {MOST_HEADERS} headers."
)
SLOW_HEAD: Final = Refusal(ErrorCode.REQUEST_TIMEOUT, "The request's head took too long.")
SLOW_BODY: Final = Refusal(ErrorCode.REQUEST_TIMEOUT, "The request's body took too long.")
TOO_MANY: Final = Refusal(ErrorCode.SERVICE_UNAVAILABLE, "Too many connections. Try again later.")
TOO_MANY_OF_ADDRESS: Final = Refusal(
    ErrorCode.RATE_LIMITED, "Too many connections from your address. Close some of them."
)


def large_head(limit: int) -> Refusal:
    """Return the refusal of a head above `limit` bytes."""
    message = f"The URL and headers are limited to {limit} bytes."
    return Refusal(ErrorCode.HEADERS_TOO_LARGE, message)
