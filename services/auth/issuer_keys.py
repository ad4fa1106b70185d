"""Owns asking outside issuers for their keys: where, how often, and what if they do not answer.

What a key set holds is key_sets.py's; what a token has to claim is issuers.py's.

IssuerUnavailableError    nothing can be said about tokens of the issuer now
UnusableAnswerError       key_sets.py; an answer that is as bad as none, so it never leaves here
"""

import asyncio
import ipaddress
import re
import time
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Final, NamedTuple, TypeAlias

import httpx2
import jwt
import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from services.auth.key_sets import KeySet, UnusableAnswerError

_log = structlog.get_logger(__name__)

Clock: TypeAlias = Callable[[], float]

_LARGEST_ANSWER: Final = 256 * 1024
_LONGEST_URL: Final = 2048

_USUAL_FRESHNESS: Final = timedelta(minutes=10)
_SHORTEST_FRESHNESS: Final = timedelta(minutes=1)
_LONGEST_FRESHNESS: Final = timedelta(hours=1)
# Without it every reader would wait out the timeout of a provider that hangs.
_FRESHNESS_AFTER_FAILURE: Final = timedelta(minutes=1)
_LONGEST_USE: Final = timedelta(days=1)
_PAUSE: Final = timedelta(seconds=10)

_MAX_AGE: Final = re.compile(r"(?:^|[\s,])max-age\s*=\s*\"?(\d{1,9})(?!\d)", re.IGNORECASE)


class IssuerUnavailableError(Exception):
    """The keys of an issuer can't be had now, so nothing can be said about its tokens."""

    def __init__(self, issuer: str) -> None:
        super().__init__(f"The keys of the issuer {issuer} can't be had now.")


def trusted_url(text: str) -> str:
    """Return an address that keys may come from: https, or anything on loopback.

    Errors: ValueError for another scheme, for credentials or a fragment, and for no URL at all.
    """
    try:
        # The parser of the client that will ask, so that both see the same host.
        url = httpx2.URL(text)
        host = url.host
    except (httpx2.InvalidURL, ValueError):
        raise ValueError("must be a URL") from None
    if len(text) > _LONGEST_URL or not host or url.userinfo or url.fragment:
        raise ValueError("must be a URL with a host, without credentials and fragment")
    if url.scheme != "https" and not (url.scheme == "http" and _is_loopback(host)):
        raise ValueError("must begin with https:// unless it is on loopback")
    return text


def freshness(cache_control: str) -> timedelta:
    """Return how long keys count as fresh: what their `Cache-Control` says, within bounds."""
    max_age = _MAX_AGE.search(cache_control)
    if max_age is None:
        return _USUAL_FRESHNESS
    asked_for = timedelta(seconds=int(max_age[1]))
    return min(max(asked_for, _SHORTEST_FRESHNESS), _LONGEST_FRESHNESS)


class FetchedKeys(NamedTuple):
    """A key set, and for how long there is no need to ask for it again."""

    keys: KeySet
    fresh_for: timedelta


class KeyProvider:
    """Asks an issuer for its keys, wherever it says that they are.

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
        """Return the keys as they are now.

        Errors: UnusableAnswerError, TimeoutError for all of it together, httpx2.HTTPError.
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
            raise UnusableAnswerError("the answer is no configuration") from None
        if found.issuer != self.issuer:
            raise UnusableAnswerError("the configuration is that of another issuer")
        try:
            url = trusted_url(found.jwks_uri)
        except ValueError as error:
            raise UnusableAnswerError(f"jwks_uri {error}") from None
        if _is_loopback(httpx2.URL(url).host) and not _is_loopback(httpx2.URL(self.issuer).host):
            # An issuer of the internet has no say over what is asked on our own machine.
            raise UnusableAnswerError("jwks_uri points to loopback")
        return url

    async def _get(self, url: str) -> tuple[bytes, httpx2.Headers]:
        """Compression is not asked for: a few packed bytes could become gigabytes."""
        headers = {
            "Accept": "application/json, application/jwk-set+json",
            "Accept-Encoding": "identity",
        }
        asked = self._http.stream("GET", url, headers=headers, follow_redirects=False)
        async with asked as response:
            if response.status_code != httpx2.codes.OK:
                raise UnusableAnswerError(f"{url} answered {response.status_code}")
            body = bytearray()
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > _LARGEST_ANSWER:
                    raise UnusableAnswerError(f"{url} answered more than {_LARGEST_ANSWER} bytes")
            return bytes(body), response.headers


class IssuerKeys:
    """Keeps the keys of one issuer, and asks for them again as seldom as is safe.

    Old keys stay in use for a day while the issuer can't be asked. A key that is not known makes
    us ask again, but never more often than every ten seconds, whatever tokens say.
    """

    def __init__(self, provider: KeyProvider, *, clock: Clock = time.monotonic) -> None:
        self._provider = provider
        self._clock = clock
        self._keys: KeySet | None = None
        self._fresh_until = self._usable_until = self._may_ask_at = clock()
        self._failing = False
        self._asking: asyncio.Task[None] | None = None

    async def find(self, kid: str | None, algorithm: str) -> jwt.PyJWK | None:
        """Return the key for a token's header, or None where the issuer has no such key.

        Errors: IssuerUnavailableError where the issuer might have it, but can't be asked.
        """
        if self._clock() >= self._fresh_until:
            await self._ask()
        key = self._find_kept(kid, algorithm)
        if key is None:
            await self._ask()
            key = self._find_kept(kid, algorithm)
        if key is None and self._failing:
            raise IssuerUnavailableError(self._provider.issuer)
        return key

    async def close(self) -> None:
        """Give up asking."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    def _find_kept(self, kid: str | None, algorithm: str) -> jwt.PyJWK | None:
        if self._keys is None or self._clock() >= self._usable_until:
            return None
        return self._keys.find(kid, algorithm)

    async def _ask(self) -> None:
        """Wait for one answer together with all who want it; one who leaves disturbs nobody."""
        if self._asking is None:
            if self._clock() < self._may_ask_at:
                return
            self._asking = asyncio.create_task(self._refresh())
        await asyncio.shield(self._asking)

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
            self._usable_until = self._clock() + _LONGEST_USE.total_seconds()
        finally:
            self._may_ask_at = self._clock() + _PAUSE.total_seconds()
            self._asking = None


class _Configuration(BaseModel):
    model_config = ConfigDict(strict=True)

    issuer: str
    jwks_uri: str


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
