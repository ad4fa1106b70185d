"""Access tokens for MCP servers over HTTP, by OAuth client credentials: fetched, kept, renewed.

The SDK's own provider holds a lock while a request waits for its answer, so that calls would wait
for each other, and does not accept a configured token endpoint. Without one it is discovered by
asking the server; administrators who don't trust the server with that configure it.
Source: RFC 6749, 2.3.1 and 4.4; RFC 8707 for `resource`; RFC 9728 and RFC 8414 for discovery, and
the authorization part of the MCP specification.
"""

import asyncio
import re
from base64 import b64encode
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, TypeVar
from urllib.parse import quote_plus, urlencode, urlsplit

from pydantic import BaseModel, ValidationError

from services.mcp.addresses import OAuthClient
from services.mcp.errors import McpServerError
from services.mcp.sdk import (
    build_oauth_authorization_server_metadata_discovery_urls,
    build_protected_resource_metadata_discovery_urls,
    check_resource_allowed,
    issuers_match,
)
from services.outgoing.client import OutgoingClient, OutgoingResponse
from services.outgoing.errors import OutgoingError

_TIMEOUT_S: Final = 8.0
_MAX_BYTES: Final = 64 * 1024
_DISCOVERY_TIMEOUT_S: Final = 5.0
_MAX_DISCOVERY_BYTES: Final = 256 * 1024
_OK: Final = 200
_REFUSED: Final = frozenset({400, 401})
_RENEW_EARLY_S: Final = 30.0
_MIN_LIFETIME_S: Final = 5.0
_MAX_LIFETIME_S: Final = 24 * 3600.0
_RETRY_PAUSE_S: Final = 5.0
"""Before a token is requested again after a failure: many calls may need one."""
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,16384}")
_ERROR_CODE: Final = re.compile(r"[a-z_]{1,40}")


class _TokenResponse(BaseModel):
    access_token: str
    token_type: str = "Bearer"  # noqa: S105 -- the name of a scheme
    expires_in: float | None = None


@dataclass(frozen=True, slots=True, repr=False)
class _Token:
    value: str
    expires_at: float


class OAuthTokens:
    """The tokens of one server, fetched one at a time. Errors: McpServerError."""

    def __init__(self, outgoing: OutgoingClient, client: OAuthClient, server_url: str) -> None:
        self._outgoing = outgoing
        self._client = client
        self._server_url = server_url
        self._lock = asyncio.Lock()
        self._token: _Token | None = None
        self._token_url = client.token_url
        self._problem = ""
        self._retry_at = 0.0

    async def current(self) -> str:
        """Return a token that has not expired."""
        async with self._lock:
            if self._token is None or monotonic() > self._token.expires_at:
                self._token = await self._fetch()
            return self._token.value

    async def renewed(self, *, instead_of: str) -> str:
        """Return a token other than a rejected one, which another call may have renewed."""
        async with self._lock:
            if self._token is not None and self._token.value == instead_of:
                self._token = None
        return await self.current()

    async def _fetch(self) -> _Token:
        if monotonic() < self._retry_at:
            raise McpServerError(self._problem)
        try:
            return await self._request()
        except OutgoingError as error:
            self._fail(f"The token endpoint returned no token. {error.sentence}")
            raise McpServerError(self._problem) from error
        except McpServerError as error:
            self._fail(str(error))
            raise

    def _fail(self, problem: str) -> None:
        self._problem = problem
        self._retry_at = monotonic() + _RETRY_PAUSE_S

    async def _request(self) -> _Token:
        if self._token_url is None:
            self._token_url = await discover_token_url(self._outgoing, self._server_url)
        response = await self._post(self._token_url, in_header=True)
        if response.status in _REFUSED:
            # Some servers only accept the secret in the body.
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
        credentials = (
            f"{quote_plus(self._client.client_id)}:{quote_plus(self._client.client_secret)}"
        )
        return b64encode(credentials.encode()).decode()


def _token_in(response: OutgoingResponse) -> _Token:
    if response.status != _OK:
        raise McpServerError(_refusal(response))
    try:
        answer = _TokenResponse.model_validate_json(response.body)
    except ValidationError as error:
        raise McpServerError("The token endpoint returned no access token.") from error
    if answer.token_type.lower() != "bearer" or not _TOKEN.fullmatch(answer.access_token):
        raise McpServerError("The token endpoint returned a token that is not a bearer token.")
    # Without `expires_in`, a token is used until it is rejected.
    lifetime_s = (
        _MAX_LIFETIME_S if answer.expires_in is None else answer.expires_in - _RENEW_EARLY_S
    )
    kept_s = max(_MIN_LIFETIME_S, min(lifetime_s, _MAX_LIFETIME_S))
    return _Token(answer.access_token, monotonic() + kept_s)


def _refusal(response: OutgoingResponse) -> str:
    code = _error_code(response.body)
    detail = f" ({code})" if code else ""
    return f"The token endpoint returned no token: HTTP status {response.status}{detail}."


class _Refusal(BaseModel):
    error: Any = None


def _error_code(body: bytes) -> str | None:
    """Return the error code of RFC 6749, if it looks like one: the text is the server's."""
    try:
        code = _Refusal.model_validate_json(body).error
    except ValidationError:
        return None
    return code if isinstance(code, str) and _ERROR_CODE.fullmatch(code) else None


class _Resource(BaseModel):
    resource: str | None = None
    authorization_servers: list[str] = []


class _AuthorizationServer(BaseModel):
    issuer: str
    token_endpoint: str


_Found = TypeVar("_Found", _Resource, _AuthorizationServer)


async def discover_token_url(outgoing: OutgoingClient, server_url: str) -> str:
    """Return the token endpoint that a server advertises. Errors: McpServerError."""
    urls = build_protected_resource_metadata_discovery_urls(None, server_url)
    resource = await _first(outgoing, urls, _Resource)
    issuer = _issuer_in(resource, server_url)
    urls = build_oauth_authorization_server_metadata_discovery_urls(issuer, server_url)
    found = await _first(outgoing, urls, _AuthorizationServer)
    if found is None:
        raise McpServerError(
            "The server does not advertise a token endpoint; set `oauth.tokenUrl`."
        )
    if not issuers_match(found.issuer, issuer or _origin(server_url)):
        raise McpServerError("The token endpoint's issuer does not match.")
    if urlsplit(server_url).scheme == "https" and urlsplit(found.token_endpoint).scheme != "https":
        raise McpServerError("The token endpoint must use HTTPS.")
    return found.token_endpoint


def _issuer_in(resource: _Resource | None, server_url: str) -> str | None:
    if resource is None:
        return None
    identifier = resource.resource
    if identifier is not None and not check_resource_allowed(
        requested_resource=server_url, configured_resource=identifier
    ):
        raise McpServerError("The server's OAuth metadata is for a different resource.")
    return resource.authorization_servers[0] if resource.authorization_servers else None


async def _first(outgoing: OutgoingClient, urls: list[str], kind: type[_Found]) -> _Found | None:
    for url in urls:
        try:
            answer = await outgoing.request(
                "GET", url, timeout_s=_DISCOVERY_TIMEOUT_S, max_bytes=_MAX_DISCOVERY_BYTES
            )
        except OutgoingError:
            continue
        if answer.status == _OK:
            try:
                return kind.model_validate_json(answer.body)
            except ValidationError:
                continue
    return None


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
