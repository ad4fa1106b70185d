"""Owns what becomes of a request over HTTP that fails: the failure of that one request.

The SDK ends a connection, with all calls under way, when one of its requests raises. So failures
are answered here as if the server had done it: with an error of JSON-RPC that only we can write.
"""

import secrets
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any, Final

import httpx2
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, JSONRPCError, RequestId, jsonrpc_message_adapter
from mcp_types.jsonrpc import ErrorData
from pydantic import ValidationError

from services.retry_after import wait_asked_for

_KEY: Final = "everturn"
_SESSION_LOST: Final = 404
_UNANSWERED: Final = frozenset({401, 403, 429})
"""Statuses that say that nothing was done."""
# Longer than any call is tried: one that has to wait so long ends, and does not come too early.
_LONGEST_WAIT: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class HttpFailure:
    """What went wrong with a request; `reached` is whether the server may have acted on it.

    `is_unreachable` is whether there was no way to the server, for this request or another.
    """

    sentence: str
    reached: bool
    is_session_lost: bool = False
    is_too_long: bool = False
    is_unreachable: bool = False
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class FailureAsResponse:
    """Writes failures into errors of JSON-RPC, and tells them from those of the server."""

    _mark: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    def answer(self, failure: HttpFailure, request_id: RequestId) -> httpx2.Response:
        """Return the answer of HTTP that carries a failure."""
        return httpx2.Response(
            status_code=500,
            headers={"Content-Type": "application/json"},
            content=self.message(failure, request_id),
        )

    def message(self, failure: HttpFailure, request_id: RequestId) -> bytes:
        """Return the error of JSON-RPC that carries a failure."""
        data = {_KEY: self._mark, **asdict(failure)}
        error = ErrorData(code=INTERNAL_ERROR, message=failure.sentence, data=data)
        message = JSONRPCError(jsonrpc="2.0", id=request_id, error=error)
        return message.model_dump_json(by_alias=True).encode()

    def failure_of(self, error: Exception) -> HttpFailure | None:
        """Return the failure that an error carries, if it is one of ours."""
        data = error.error.data if isinstance(error, MCPError) else None
        if not isinstance(data, dict) or data.get(_KEY) != self._mark:
            return None
        found: dict[str, Any] = {key: value for key, value in data.items() if key != _KEY}
        return HttpFailure(**found)


def failure_of_status(response: httpx2.Response, *, had_session: bool) -> HttpFailure | None:
    """Return what a status means, unless the body says it in the words of the protocol."""
    status = response.status_code
    if status == _SESSION_LOST and had_session:
        return HttpFailure("It has forgotten the session.", reached=False, is_session_lost=True)
    if _is_error(response.content):
        return None
    wait = wait_asked_for(response.headers, longest=_LONGEST_WAIT)
    return HttpFailure(
        f"It answered with HTTP status {status}.",
        reached=status not in _UNANSWERED,
        retry_after_s=None if wait is None else wait.total_seconds(),
    )


def _is_error(body: bytes) -> bool:
    try:
        return isinstance(jsonrpc_message_adapter.validate_json(body, by_name=False), JSONRPCError)
    except ValidationError:
        return False
