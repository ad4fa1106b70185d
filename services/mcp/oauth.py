"""Access tokens for MCP servers over HTTP, by OAuth client credentials: fetched, kept, renewed.

The SDK's own provider holds a lock while a request waits for its answer, so that calls would wait
for each other, and does not accept a configured token endpoint. Without one it is discovered by
asking the server; administrators who don't trust the server with that configure it.
Source: RFC 6749, 2.3.1 and 4.4; RFC 7523, 2.2; RFC 8707 for `resource`; the authorization part of
the MCP specification for scopes.
"""

import asyncio
import re
from base64 import b64encode
from collections import deque
from dataclasses import dataclass
from math import isfinite
from time import monotonic
from typing import Annotated, Any, Final
from urllib.parse import quote_plus, urlencode

import httpx2
from pydantic import BaseModel, BeforeValidator, ValidationError

from services.mcp.addresses import OAuthClient
from services.mcp.assertions import is_private_key, signed_assertion
from services.mcp.challenges import Challenge, challenge_in, named
from services.mcp.destinations import Destinations
from services.mcp.discovery import TokenEndpoint, discover
from services.mcp.errors import McpServerError, Outlook, is_away_by
from services.mcp.limits import TokenBucket
from services.outgoing.client import OutgoingResponse
from services.outgoing.errors import ForbiddenAddressError, OutgoingError

_TIMEOUT_S: Final = 8.0
_MAX_BYTES: Final = 64 * 1024
_OK: Final = 200
_REFUSED: Final = frozenset({400, 401})
_RENEW_EARLY_S: Final = 30.0
_MIN_LIFETIME_S: Final = 5.0
_MAX_LIFETIME_S: Final = 24 * 3600.0
_RETRY_PAUSE_S: Final = 5.0
"""Before a token is requested again after a failure: many calls may need one."""
_MAX_RENEWALS: Final = 10
_RENEWALS_REFILL_S: Final = 300.0
"""How often tokens are replaced that the server rejects before they expire."""
_MAX_ISSUED: Final = 20
_MAX_NAMED: Final = 5
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,16384}")
_AWAY: Final = frozenset({"server_error", "slow_down", "temporarily_unavailable"})
"""Error codes of token endpoints that may work later."""
_ERROR_CODE: Final = re.compile(r"[a-z_]{1,40}")
_PRIVATE_KEY_JWT: Final = "private_key_jwt"
_WITH_SECRET: Final = ("client_secret_basic", "client_secret_post")
_WITHOUT: Final = "none"


def _seconds(value: object) -> float | None:
    """Return a lifetime, some servers write it as text; None for what says nothing."""
    try:
        seconds = float(value) if isinstance(value, str | int | float) else None
    except (ValueError, OverflowError):
        return None
    return seconds if seconds is not None and isfinite(seconds) else None


class _TokenResponse(BaseModel):
    access_token: str
    token_type: str = "Bearer"  # noqa: S105 -- the name of a scheme
    expires_in: Annotated[float | None, BeforeValidator(_seconds)] = None


@dataclass(frozen=True, slots=True, repr=False)
class _Token:
    value: str
    expires_at: float


class OAuthTokens:
    """The tokens of one server, fetched one at a time. Errors: McpServerError."""

    def __init__(self, destinations: Destinations, client: OAuthClient, server_url: str) -> None:
        self._destinations = destinations
        self._client = client
        self._server_url = server_url
        self._lock = asyncio.Lock()
        self._token: _Token | None = None
        self._endpoint: TokenEndpoint | None = None
        if client.token_url is not None:
            url = client.token_url
            self._endpoint = TokenEndpoint(url, resource=server_url, issuer=url, named_by=url)
        self._scopes: tuple[str, ...] = tuple((client.scope or "").split())
        self._renewals = TokenBucket(_MAX_RENEWALS, refill_s=_RENEWALS_REFILL_S)
        self._issued: deque[str] = deque(maxlen=_MAX_ISSUED)
        self._problem = ""
        self._outlook: Outlook = "away"
        self._retry_at = 0.0

    @property
    def needs_challenge(self) -> bool:
        """Whether the server has to refuse a request first: it then says where tokens are."""
        return self._endpoint is None

    @property
    def issued(self) -> tuple[str, ...]:
        """The latest tokens: a server may repeat one."""
        return tuple(self._issued)

    async def current(self, challenge: Challenge | None = None) -> str:
        """Return a token that has not expired."""
        async with self._lock:
            if self._token is None or monotonic() > self._token.expires_at:
                self._token = await self._fetch(challenge or Challenge())
            return self._token.value

    async def renewed(self, *, instead_of: str, challenge: Challenge) -> str | None:
        """Return a token other than a rejected one, which another call may have renewed.

        None if another one would be rejected as well.
        """
        async with self._lock:
            if self._token is not None and self._token.value != instead_of:
                return self._token.value
            if challenge.is_insufficient and self._wanted(challenge) == self._scopes:
                return None
            if not self._renewals.take(1):
                return None
            if not challenge.is_insufficient:
                self._token = None
            # A token that only lacks scopes stays, should the wider one be refused.
            self._token = await self._fetch(challenge)
            return self._token.value

    def _wanted(self, challenge: Challenge) -> tuple[str, ...]:
        """Return the scopes to request: as configured, or all that were asked for so far."""
        if self._client.scope:
            return self._scopes
        wanted = tuple(dict.fromkeys([*self._scopes, *challenge.scopes]))
        return wanted or (self._endpoint.scopes if self._endpoint else ())

    async def _fetch(self, challenge: Challenge) -> _Token:
        if monotonic() < self._retry_at:
            raise McpServerError(self._problem, outlook=self._outlook)
        try:
            return await self._request(challenge)
        except OutgoingError as error:
            outlook: Outlook = "refused" if error.is_final else "away"
            self._fail(f"The token endpoint returned no token. {self._sentence(error)}", outlook)
            raise McpServerError(self._problem, outlook=outlook) from error
        except McpServerError as error:
            self._fail(str(error), error.outlook)
            raise

    def _fail(self, problem: str, outlook: Outlook) -> None:
        self._problem, self._outlook = problem, outlook
        self._retry_at = monotonic() + _RETRY_PAUSE_S

    def _sentence(self, error: OutgoingError) -> str:
        if isinstance(error, ForbiddenAddressError) and self._client.token_url is None:
            return "It has a private address; if that is right, set `oauth.tokenUrl`."
        return error.sentence

    async def _request(self, challenge: Challenge) -> _Token:
        if self._endpoint is None:
            self._endpoint = await discover(self._destinations, self._server_url, challenge)
        scopes = self._wanted(challenge)
        first, *others = self._methods(self._endpoint)
        response = await self._post(self._endpoint, first, scopes)
        for method in others:
            if response.status in _REFUSED:
                response = await self._post(self._endpoint, method, scopes)
        token = self._token_in(response, scopes)
        self._issued.append(token.value)
        self._scopes = scopes
        return token

    def _methods(self, endpoint: TokenEndpoint) -> list[str]:
        """Return how to authenticate, in the order to try. Errors: McpServerError."""
        if is_private_key(self._client.client_secret):
            return [_PRIVATE_KEY_JWT]
        methods: list[str] = [method for method in _WITH_SECRET if method in endpoint.methods]
        if not methods and _WITHOUT in endpoint.methods:
            methods.append(_WITHOUT)
        if methods:
            return methods
        known = [method for method in endpoint.methods if _ERROR_CODE.fullmatch(method)]
        listed = f" ({', '.join(known[:_MAX_NAMED])})" if known else ""
        raise McpServerError(f"The token endpoint accepts no client secret{listed}.")

    async def _post(
        self, endpoint: TokenEndpoint, method: str, scopes: tuple[str, ...]
    ) -> OutgoingResponse:
        fields = {"grant_type": "client_credentials", "resource": endpoint.resource}
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if scopes:
            fields["scope"] = " ".join(scopes)
        if method == "client_secret_basic":
            headers["Authorization"] = f"Basic {self._basic()}"
        else:
            fields["client_id"] = self._client.client_id
        if method == "client_secret_post":
            fields["client_secret"] = self._client.client_secret
        elif method == _PRIVATE_KEY_JWT:
            fields |= signed_assertion(
                self._client.client_id, self._client.client_secret, audience=endpoint.issuer
            )
        client = self._destinations.client_for(endpoint.url, named_by=endpoint.named_by)
        return await client.request(
            "POST",
            endpoint.url,
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

    def _token_in(self, response: OutgoingResponse, scopes: tuple[str, ...]) -> _Token:
        if response.status != _OK:
            raise self._refusal(response, scopes)
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

    def _refusal(self, response: OutgoingResponse, scopes: tuple[str, ...]) -> McpServerError:
        code = _error_code(response.body)
        detail = f" ({code})" if code else ""
        shown = named(scopes, secrets=(self._client.client_secret, *self._issued))
        asked = f" Requested scopes: {shown}." if shown else ""
        is_away = is_away_by(response.status) or code in _AWAY
        return McpServerError(
            f"The token endpoint returned no token: HTTP status {response.status}{detail}.{asked}",
            outlook="away" if is_away else "refused",
        )


class _Refusal(BaseModel):
    error: Any = None


def _error_code(body: bytes) -> str | None:
    """Return the error code of RFC 6749, if it looks like one: the text is the server's."""
    try:
        code = _Refusal.model_validate_json(body).error
    except ValidationError:
        return None
    return code if isinstance(code, str) and _ERROR_CODE.fullmatch(code) else None


class AuthorizedTransport(httpx2.AsyncBaseTransport):
    """Sends each request with a token; one that is refused is sent again with a better one.

    A refused request had no effect. Each of the two refusals, 401 and 403 for lack of scopes,
    is answered once for each request.
    """

    def __init__(self, inner: httpx2.AsyncBaseTransport, tokens: OAuthTokens) -> None:
        self._inner = inner
        self._tokens = tokens

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request. Errors: OutgoingError, McpServerError."""
        token = await self._tokens.current(await self._first_challenge(request))
        answered: set[int] = set()
        while True:
            request.headers["Authorization"] = f"Bearer {token}"
            response = await self._inner.handle_async_request(request)
            challenge = _refusal_in(response)
            if challenge is None or response.status_code in answered:
                return response
            answered.add(response.status_code)
            renewed = await self._tokens.renewed(instead_of=token, challenge=challenge)
            if renewed is None:
                return response
            await response.aclose()
            token = renewed

    async def _first_challenge(self, request: httpx2.Request) -> Challenge | None:
        """Return what the server asks for without a token, if that is still to be learned.

        The first request of a connection has no effect, so it may be sent twice.
        """
        if not self._tokens.needs_challenge:
            return None
        response = await self._inner.handle_async_request(request)
        await response.aclose()
        return _refusal_in(response)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


def _refusal_in(response: httpx2.Response) -> Challenge | None:
    if response.status_code == httpx2.codes.UNAUTHORIZED:
        return challenge_in(response.headers)
    if response.status_code == httpx2.codes.FORBIDDEN:
        challenge = challenge_in(response.headers)
        return challenge if challenge.is_insufficient else None
    return None
