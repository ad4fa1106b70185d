"""Owns the tokens for a server over HTTP, by OAuth client credentials: got, kept, renewed.

The SDK has a provider of its own, which holds a lock while a request waits for its answer, so that
one call would wait for another, and which can't be told where tokens are to be had.
Source: RFC 6749, 2.3.1 and 4.4; RFC 8707 for `resource`.
"""

import asyncio
import re
from base64 import b64encode
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final
from urllib.parse import quote_plus, urlencode

from pydantic import BaseModel, ValidationError

from services.mcp.addresses import OAuthClient
from services.mcp.errors import McpServerError
from services.mcp.oauth_discovery import discovered_token_url
from services.outgoing.client import OutgoingClient, OutgoingResponse
from services.outgoing.errors import OutgoingError

_TIMEOUT_S: Final = 8.0
_MAX_BYTES: Final = 64 * 1024
_OK: Final = 200
_REFUSED: Final = frozenset({400, 401})
_EARLY_S: Final = 30.0
_SHORTEST_S: Final = 5.0
_LONGEST_S: Final = 24 * 3600.0
_PAUSE_S: Final = 5.0
"""Before a token is asked for again after that has failed: many calls may want one."""
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,16384}")
_ERROR_CODE: Final = re.compile(r"[a-z_]{1,40}")


class _TokenAnswer(BaseModel):
    access_token: str
    token_type: str = "Bearer"  # noqa: S105 -- the name of a scheme
    expires_in: float | None = None


@dataclass(frozen=True, slots=True, repr=False)
class _Token:
    value: str
    good_until: float


class OAuthTokens:
    """Gets tokens for one server, one at a time. Errors: McpServerError."""

    def __init__(self, outgoing: OutgoingClient, client: OAuthClient, server_url: str) -> None:
        self._outgoing = outgoing
        self._client = client
        self._server_url = server_url
        self._lock = asyncio.Lock()
        self._token: _Token | None = None
        self._token_url = client.token_url
        self._problem = ""
        self._not_before = 0.0

    async def current(self) -> str:
        """Return a token that is good for a while."""
        async with self._lock:
            if self._token is None or monotonic() > self._token.good_until:
                self._token = await self._get()
            return self._token.value

    async def renewed(self, *, instead_of: str) -> str:
        """Return another token than one that was refused, which somebody may have got already."""
        async with self._lock:
            if self._token is not None and self._token.value == instead_of:
                self._token = None
        return await self.current()

    async def _get(self) -> _Token:
        if monotonic() < self._not_before:
            raise McpServerError(self._problem)
        try:
            return await self._ask()
        except OutgoingError as error:
            self._fail(f"Its token endpoint gave no token: {error.sentence}")
            raise McpServerError(self._problem) from error
        except McpServerError as error:
            self._fail(str(error))
            raise

    def _fail(self, problem: str) -> None:
        self._problem = problem
        self._not_before = monotonic() + _PAUSE_S

    async def _ask(self) -> _Token:
        if self._token_url is None:
            self._token_url = await discovered_token_url(self._outgoing, self._server_url)
        response = await self._post(self._token_url, in_header=True)
        if response.status in _REFUSED:
            # Some servers take the secret in the body alone.
            response = await self._post(self._token_url, in_header=False)
        return _token_in(response)

    async def _post(self, url: str, *, in_header: bool) -> OutgoingResponse:
        fields = {"grant_type": "client_credentials", "resource": self._server_url}
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if self._client.scope:
            fields["scope"] = self._client.scope
        if in_header:
            headers["Authorization"] = f"Basic {self._basic()}"
        else:
            fields["client_id"] = self._client.client_id
            fields["client_secret"] = self._client.client_secret
        return await self._outgoing.request(
            "POST",
            url,
            timeout_s=_TIMEOUT_S,
            headers={**headers, "Accept": "application/json"},
            content=urlencode(fields).encode(),
            max_bytes=_MAX_BYTES,
        )

    def _basic(self) -> str:
        words = f"{quote_plus(self._client.client_id)}:{quote_plus(self._client.client_secret)}"
        return b64encode(words.encode()).decode()


def _token_in(response: OutgoingResponse) -> _Token:
    if response.status != _OK:
        raise McpServerError(_refusal(response))
    try:
        answer = _TokenAnswer.model_validate_json(response.body)
    except ValidationError as error:
        raise McpServerError("Its token endpoint answered without a token.") from error
    if answer.token_type.lower() != "bearer" or not _TOKEN.fullmatch(answer.access_token):
        raise McpServerError("Its token endpoint answered with a token that is no bearer token.")
    # Until it is refused, where nobody says for how long it is good.
    lifetime = _LONGEST_S if answer.expires_in is None else answer.expires_in - _EARLY_S
    lasts = max(_SHORTEST_S, min(lifetime, _LONGEST_S))
    return _Token(answer.access_token, monotonic() + lasts)


def _refusal(response: OutgoingResponse) -> str:
    code = _error_code(response.body)
    named = f" ({code})" if code else ""
    return f"Its token endpoint gave no token: HTTP status {response.status}{named}."


class _Refusal(BaseModel):
    error: Any = None


def _error_code(body: bytes) -> str | None:
    """Return what RFC 6749 calls the error, if it looks like one: it is a stranger's word."""
    try:
        code = _Refusal.model_validate_json(body).error
    except ValidationError:
        return None
    return code if isinstance(code, str) and _ERROR_CODE.fullmatch(code) else None
