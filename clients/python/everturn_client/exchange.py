"""The protocol of a call, without I/O: signing, refreshing tokens, retries and their pauses.

Everything here is a generator of actions. A runner performs them, blocking or async, and sends back
each result; so the logic is written once, and its pauses can be tested without waiting.
"""

import random
from collections.abc import AsyncIterator, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import httpx2
from pydantic import BaseModel, SecretStr

from everturn_client.calls import Call, fields
from everturn_client.errors import (
    APIStatusError,
    AuthenticationError,
    EverturnError,
    SessionExpiredError,
    error_from_response,
    error_from_transport,
)
from everturn_client.models import Session

T = TypeVar("T")

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 8.0
_JITTER: Final = 0.25
# 409 is not among them: waiting does not resolve a conflict.
_TRANSIENT: Final = frozenset({408, 429})


class Tokens(BaseModel, frozen=True):
    """What requests are signed with. An API key has no refresh token."""

    access_token: SecretStr
    refresh_token: SecretStr | None = None


class TokenStore(Protocol):
    """Where tokens are kept. It is read for each request, so several clients may share one."""

    def load(self) -> Tokens | None:
        """Return the tokens, or None when signed out."""

    def save(self, session: Session) -> None:
        """Keep the tokens of a sign-in or a refresh."""

    def clear(self) -> None:
        """Forget the tokens."""


class MemoryTokenStore:
    """Keeps tokens as long as the client lives."""

    def __init__(self, tokens: Tokens | None = None) -> None:
        self._tokens = tokens

    def load(self) -> Tokens | None:
        """Return the tokens, or None when signed out."""
        return self._tokens

    def save(self, session: Session) -> None:
        """Keep the tokens of a sign-in or a refresh."""
        self._tokens = Tokens(
            access_token=session.access_token, refresh_token=session.refresh_token
        )

    def clear(self) -> None:
        """Forget the tokens."""
        self._tokens = None


@dataclass(frozen=True)
class Connection:
    """An open response whose body is read in chunks."""

    response: httpx2.Response
    chunks: Iterator[bytes] | AsyncIterator[bytes]


@dataclass(frozen=True)
class Send:
    """Send a request; the result is the response, read to its end."""

    call: Call[Any]
    headers: dict[str, str]


@dataclass(frozen=True)
class Open(Send):
    """Send a request; the result is a connection, or the whole response if it is an error."""


@dataclass(frozen=True)
class Read:
    """Read from a connection; the result is a chunk, or None at its end."""

    connection: Connection


@dataclass(frozen=True)
class Close:
    """Close a connection."""

    connection: Connection


@dataclass(frozen=True)
class Sleep:
    """Wait."""

    seconds: float


@dataclass(frozen=True)
class Refresh:
    """Replace tokens that have expired, one request at a time."""

    used: Tokens


@dataclass(frozen=True)
class Emit:
    """Hand something to the caller before going on."""

    value: Any


Action: TypeAlias = Send | Open | Read | Close | Sleep | Refresh | Emit
Script: TypeAlias = Generator[Action, Any, T]


def backoff_s(attempt: int) -> float:
    """Return the pause before a retry: 0.5 s, doubled up to 8 s, less a random quarter."""
    pause = min(FIRST_PAUSE_S * 2.0 ** min(attempt, 10), LONGEST_PAUSE_S)
    return pause * (1 - _JITTER * random.random())  # noqa: S311 -- jitter, no secret


def is_transient(error: EverturnError) -> bool:
    """Return whether the same request may succeed later."""
    if isinstance(error, APIStatusError):
        return error.status_code in _TRANSIENT or error.status_code >= 500
    return True


@dataclass(frozen=True)
class Exchange:
    """How the calls of one client are made.

    Units: seconds. A `Retry-After` above `max_retry_after_s` is an error at once.
    """

    url: str
    tokens: TokenStore
    timeout_s: float = 90.0
    max_retries: int = 2
    max_retry_after_s: float = 60.0

    def perform(self, call: Call[T]) -> Script[T]:
        """Make a call and return what its response carries. Errors: EverturnError."""
        response = yield from self.send(call)
        answer = call.read(response)
        if call.tokens == "keep" and isinstance(answer, Session):
            self.tokens.save(answer)
        elif call.tokens == "forget":
            self.tokens.clear()
        return answer

    def send(self, call: Call[Any]) -> Script[httpx2.Response]:
        """Make a call and return its successful response, retrying what may pass."""
        reply: httpx2.Response = yield from self._attempts(call, Send, self.max_retries)
        return reply

    def open(self, call: Call[Any], *, retries: int | None = None) -> Script[Connection]:
        """Make a call and return its open connection, retrying what may pass."""
        limit = self.max_retries if retries is None else retries
        reply: Connection = yield from self._attempts(call, Open, limit)
        return reply

    def read(self, connection: Connection) -> Script[httpx2.Response]:
        """Return the whole response of an open connection."""
        body = b""
        try:
            while (chunk := (yield Read(connection))) is not None:
                body += chunk
        except httpx2.RequestError as error:
            raise error_from_transport(error, self.url) from error
        yield Close(connection)
        response = connection.response
        return httpx2.Response(response.status_code, content=body, request=response.request)

    def refresh(self, used: Tokens) -> Script[None]:
        """Replace tokens, unless another request has done so. Errors: SessionExpiredError."""
        if used.refresh_token is None or self.tokens.load() != used:
            return
        body = fields(refresh_token=used.refresh_token)
        # A refresh token works once: sent again when it may have arrived, it ends the session.
        call = Call(
            method="POST",
            path="/auth/refresh",
            answer=Session,
            body=body,
            repeatable=False,
            signed=False,
            tokens="keep",
        )
        try:
            yield from self.perform(call)
        except APIStatusError as error:
            if is_transient(error):
                raise
            self.tokens.clear()
            raise _expired(error) from error

    def _attempts(self, call: Call[Any], kind: type[Send], retries: int) -> Script[Any]:
        attempt, refreshed = 0, False
        while True:
            used = self.tokens.load() if call.signed else None
            failure: EverturnError
            try:
                reply = yield kind(call, self._headers(call, used))
            except httpx2.RequestError as error:
                failure = error_from_transport(error, self.url)
                failure.__cause__ = error
            else:
                if isinstance(reply, Connection) or reply.is_success:
                    return reply
                failure = error_from_response(reply)
            if isinstance(failure, AuthenticationError) and used is not None and not refreshed:
                refreshed = used.refresh_token is not None
                if refreshed:
                    yield Refresh(used)
                    continue
            pause = self._pause_s(call, failure, attempt) if attempt < retries else None
            if pause is None:
                raise failure
            yield Sleep(pause)
            attempt += 1

    def _headers(self, call: Call[Any], tokens: Tokens | None) -> dict[str, str]:
        headers = dict(call.headers)
        if tokens is not None:
            headers["Authorization"] = f"Bearer {tokens.access_token.get_secret_value()}"
        return headers

    def _pause_s(self, call: Call[Any], failure: EverturnError, attempt: int) -> float | None:
        """Return the pause before the next attempt, or None where there should be none."""
        if not is_transient(failure):
            return None
        if not (call.repeatable or _never_arrived(failure)):
            return None
        asked = failure.retry_after_s if isinstance(failure, APIStatusError) else None
        if asked is None:
            return backoff_s(attempt)
        return asked if asked <= self.max_retry_after_s else None


def _never_arrived(failure: EverturnError) -> bool:
    """Return whether the API can't have acted on the request."""
    if isinstance(failure, APIStatusError):
        return failure.status_code in {429, 503}
    return isinstance(failure.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout)


def _expired(error: APIStatusError) -> SessionExpiredError:
    return SessionExpiredError(
        "The session has expired. Sign in again.",
        status_code=error.status_code,
        code=error.code,
        request_id=error.request_id,
    )
