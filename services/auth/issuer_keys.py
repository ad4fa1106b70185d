"""Keys of external issuers: JSON Web Key Sets, where they are, how often they are fetched.

The claims that a token needs are in issuers.py.

    IssuerUnavailableError    the issuer can't be reached, so its tokens can't be verified
    UnusableAnswerError       an unusable response counts as none, so it never leaves this module
"""

import asyncio
import ipaddress
import re
import time
from collections.abc import Callable, Collection, Iterator
from datetime import timedelta
from typing import Annotated, Final, NamedTuple, TypeAlias

import httpx2
import jwt
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from pydantic import BaseModel, ConfigDict, Field, ValidationError

_log = structlog.get_logger(__name__)

Clock: TypeAlias = Callable[[], float]

_MAX_RESPONSE_BYTES: Final = 256 * 1024
_MAX_URL_LENGTH: Final = 2048

_DEFAULT_FRESHNESS: Final = timedelta(minutes=10)
_MIN_FRESHNESS: Final = timedelta(minutes=1)
_MAX_FRESHNESS: Final = timedelta(hours=1)
# Without it every reader would wait out the timeout of a provider that hangs.
_FRESHNESS_AFTER_FAILURE: Final = timedelta(minutes=1)
_MAX_USE: Final = timedelta(days=1)
_PAUSE: Final = timedelta(seconds=10)

_MAX_KEYS: Final = 100
_MAX_AGE: Final = re.compile(r"(?:^|[\s,])max-age\s*=\s*\"?(\d{1,9})(?!\d)", re.IGNORECASE)


class IssuerUnavailableError(Exception):
    """The issuer can't be reached, so its tokens can't be verified."""

    def __init__(self, issuer: str) -> None:
        super().__init__(f"The keys of the issuer {issuer} are unavailable.")


def trusted_url(text: str) -> str:
    """Return a URL that keys may come from: https, or any scheme on loopback.

    Errors: ValueError for another scheme, for credentials or a fragment, and for an invalid URL.
    """
    try:
        # The parser of the client that will connect, so that both see the same host.
        url = httpx2.URL(text)
        host = url.host
    except (httpx2.InvalidURL, ValueError):
        raise ValueError("must be a URL") from None
    if len(text) > _MAX_URL_LENGTH or not host or url.userinfo or url.fragment:
        raise ValueError("must be a URL with a host, without credentials and fragment")
    if url.scheme != "https" and not (url.scheme == "http" and _is_loopback(host)):
        raise ValueError("must begin with https:// unless it is on loopback")
    return text


def freshness(cache_control: str) -> timedelta:
    """Return how long keys are fresh: as their `Cache-Control` says, within bounds."""
    max_age = _MAX_AGE.search(cache_control)
    if max_age is None:
        return _DEFAULT_FRESHNESS
    requested = timedelta(seconds=int(max_age[1]))
    return min(max(requested, _MIN_FRESHNESS), _MAX_FRESHNESS)


class UnusableAnswerError(Exception):
    """An issuer sent an unusable response."""


class KeySet:
    """The keys of a JSON Web Key Set that can verify tokens.

    Errors: UnusableAnswerError from the constructor for an invalid document; keys that are
    private, weak, or meant for something else are left out instead.
    Source: RFC 7517.
    """

    def __init__(self, document: bytes, *, algorithms: Collection[str]) -> None:
        try:
            listed = _KeyList.model_validate_json(document).keys
        except ValidationError:
            raise UnusableAnswerError("the response is not a key set") from None
        self._keys = [key for entry in listed for key in _verifying_keys(entry, algorithms)]

    def find(self, kid: str | None, algorithm: str) -> jwt.PyJWK | None:
        """Return the key for a token's header; None unless exactly one matches."""
        matching = [
            key
            for key in self._keys
            if key.algorithm_name == algorithm and (kid is None or key.key_id == kid)
        ]
        return matching[0] if len(matching) == 1 else None


_Member: TypeAlias = Annotated[str, Field(max_length=1400)] | None  # holds RSA of 8192 bits


class _JsonWebKey(BaseModel):
    """The members of a key that matter here."""

    kty: str
    kid: str | None = None
    use: str | None = None
    key_ops: list[str] | None = None
    alg: str | None = None
    crv: _Member = None
    n: _Member = None
    e: _Member = None
    x: _Member = None
    y: _Member = None
    d: object = Field(None, exclude=True)

    def can_verify(self) -> bool:
        """Return whether it is for verifying; a published private key proves nothing."""
        for_verifying = self.key_ops is None or "verify" in self.key_ops
        return for_verifying and self.use in {None, "sig"} and self.d is None


class _KeyList(BaseModel):
    keys: Annotated[list[object], Field(max_length=_MAX_KEYS)]


def _verifying_keys(entry: object, algorithms: Collection[str]) -> Iterator[jwt.PyJWK]:
    """Yield the key once for each algorithm that it matches, bound to it."""
    try:
        jwk = _JsonWebKey.model_validate(entry)
    except ValidationError:
        return
    if not jwk.can_verify():
        return
    for algorithm in algorithms:
        if jwk.alg in {None, algorithm}:
            key = _bound(jwk, algorithm)
            if key is not None:
                yield key


def _bound(jwk: _JsonWebKey, algorithm: str) -> jwt.PyJWK | None:
    try:
        key = jwt.PyJWK(jwk.model_dump(exclude_none=True), algorithm)
        # Only this, not the constructor, refuses a curve of another algorithm.
        prepared = key.Algorithm.prepare_key(key.key)
    except (jwt.PyJWTError, UnsupportedAlgorithm, ValueError):
        return None
    too_weak = key.Algorithm.check_key_length(prepared)
    return None if too_weak else key


class FetchedKeys(NamedTuple):
    """A key set, and how long it is fresh."""

    keys: KeySet
    fresh_for: timedelta


class KeyProvider:
    """Fetches the keys of an issuer from its configured or discovered URL.

    Source: OpenID Connect Discovery 1.0, section 4.
    """

    def __init__(
        self,
        issuer: str,
        http: httpx2.AsyncClient,
        *,
        jwks_url: str | None,
        algorithms: Collection[str],
        timeout: timedelta,
    ) -> None:
        self.issuer = issuer
        self._http = http
        self._jwks_url = jwks_url
        self._algorithms = algorithms
        self._timeout_s = timeout.total_seconds()

    async def fetch(self) -> FetchedKeys:
        """Return the present keys.

        Errors: UnusableAnswerError; TimeoutError for discovery and keys together; httpx2.HTTPError.
        """
        async with asyncio.timeout(self._timeout_s):
            body, headers = await self._get(self._jwks_url or await self._discover())
        keys = KeySet(body, algorithms=self._algorithms)
        return FetchedKeys(keys, freshness(headers.get("Cache-Control", "")))

    async def _discover(self) -> str:
        body, _ = await self._get(f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
        try:
            found = _Configuration.model_validate_json(body)
        except ValidationError:
            raise UnusableAnswerError("the response is not an OpenID configuration") from None
        if found.issuer != self.issuer:
            raise UnusableAnswerError("the configuration belongs to another issuer")
        try:
            url = trusted_url(found.jwks_uri)
        except ValueError as error:
            raise UnusableAnswerError(f"jwks_uri {error}") from None
        if _is_loopback(httpx2.URL(url).host) and not _is_loopback(httpx2.URL(self.issuer).host):
            # An issuer on the internet must not choose what is requested on our own machine.
            raise UnusableAnswerError("jwks_uri points to loopback")
        return url

    async def _get(self, url: str) -> tuple[bytes, httpx2.Headers]:
        """Compression is not accepted: a few bytes could expand to gigabytes."""
        headers = {
            "Accept": "application/json, application/jwk-set+json",
            "Accept-Encoding": "identity",
        }
        request = self._http.stream("GET", url, headers=headers, follow_redirects=False)
        async with request as response:
            if response.status_code != httpx2.codes.OK:
                raise UnusableAnswerError(f"{url} answered {response.status_code}")
            body = bytearray()
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > _MAX_RESPONSE_BYTES:
                    raise UnusableAnswerError(
                        f"{url} answered more than {_MAX_RESPONSE_BYTES} bytes"
                    )
            return bytes(body), response.headers


class IssuerKeys:
    """Caches the keys of one issuer, and fetches them as rarely as is safe.

    Old keys stay in use for a day while the issuer is unavailable. An unknown key causes another
    request, but never more often than every ten seconds, whatever tokens arrive.
    """

    def __init__(self, provider: KeyProvider, *, clock: Clock = time.monotonic) -> None:
        self._provider = provider
        self._clock = clock
        self._keys: KeySet | None = None
        self._fresh_until = self._usable_until = self._next_request_at = clock()
        self._failing = False
        self._request: asyncio.Task[None] | None = None

    async def find(self, kid: str | None, algorithm: str) -> jwt.PyJWK | None:
        """Return the key for a token's header, or None if the issuer has no such key.

        Errors: IssuerUnavailableError if the issuer might have it, but can't be reached.
        """
        if self._clock() >= self._fresh_until:
            await self._fetch_once()
        key = self._find_cached(kid, algorithm)
        if key is None:
            await self._fetch_once()
            key = self._find_cached(kid, algorithm)
        if key is None and self._failing:
            raise IssuerUnavailableError(self._provider.issuer)
        return key

    async def close(self) -> None:
        """Cancel a request in progress."""
        if self._request is not None:
            self._request.cancel()
            await asyncio.gather(self._request, return_exceptions=True)

    def _find_cached(self, kid: str | None, algorithm: str) -> jwt.PyJWK | None:
        if self._keys is None or self._clock() >= self._usable_until:
            return None
        return self._keys.find(kid, algorithm)

    async def _fetch_once(self) -> None:
        """Wait for one shared request; cancelling one waiter does not affect the others."""
        if self._request is None:
            if self._clock() < self._next_request_at:
                return
            self._request = asyncio.create_task(self._refresh())
        await asyncio.shield(self._request)

    async def _refresh(self) -> None:
        try:
            fetched = await self._provider.fetch()
        except (UnusableAnswerError, TimeoutError, httpx2.HTTPError, httpx2.InvalidURL) as error:
            self._failing = True
            self._fresh_until = self._clock() + _FRESHNESS_AFTER_FAILURE.total_seconds()
            reason = f"{type(error).__name__}: {error}"
            _log.warning("issuer_unavailable", issuer=self._provider.issuer, reason=reason)
        else:
            self._failing = False
            self._keys = fetched.keys
            self._fresh_until = self._clock() + fetched.fresh_for.total_seconds()
            self._usable_until = self._clock() + _MAX_USE.total_seconds()
        finally:
            self._next_request_at = self._clock() + _PAUSE.total_seconds()
            self._request = None


class _Configuration(BaseModel):
    model_config = ConfigDict(strict=True)

    issuer: str
    jwks_uri: str


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
