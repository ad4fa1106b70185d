"""Owns asking Brave's search API: one request, and what its answers mean.

Source: https://api-dashboard.search.brave.com/api-reference/web/search/get
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final
from urllib.parse import urlencode

from schema.result import Err, Ok, Result
from services.outgoing.client import OutgoingClient, OutgoingResponse
from services.outgoing.errors import (
    ForbiddenAddressError,
    InvalidRequestError,
    OutgoingError,
    RedirectedError,
)
from services.retry_after import wait_asked_for
from services.tools.definition import ToolUnavailableError
from services.tools.web_search.definition import TIMEOUT, Freshness
from services.tools.web_search.results import FoundPage, UnreadableAnswerError, pages_in

_PATH: Final = "/res/v1/web/search"
# Less than the tool's own time, so that a slow answer is asked for again rather than given up.
_TIMEOUT_S: Final = TIMEOUT.total_seconds() * 0.8
_MAX_BYTES: Final = 2 * 1024 * 1024
_LONGEST_WAIT: Final = timedelta(seconds=60)
_FRESHNESS: Final[Mapping[Freshness, str]] = {
    "day": "pd",
    "week": "pw",
    "month": "pm",
    "year": "py",
}
COUNTRIES: Final = frozenset(
    {
        *("AR", "AT", "AU", "BE", "BR", "CA", "CH", "CL", "CN", "DE", "DK", "ES", "FI"),
        *("FR", "GB", "GR", "HK", "ID", "IN", "IT", "JP", "KR", "MX", "MY", "NL", "NO"),
        *("NZ", "PH", "PL", "PT", "RU", "SA", "SE", "TR", "TW", "US", "ZA"),
    }
)
"""Where the engine can prefer results from."""


class SearchRefusal(StrEnum):
    """Why the search engine does not search."""

    NOT_SET_UP = "not_set_up"
    QUERY = "query"
    USED_UP = "used_up"


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for; `country` is one of those that the engine knows."""

    query: str
    count: int
    freshness: Freshness
    country: str | None


class BraveSearch:
    """Searches the web with a key of this server's."""

    def __init__(self, client: OutgoingClient, *, api_key: str, base_url: str, safe: str) -> None:
        self._client = client
        self._url = base_url.rstrip("/") + _PATH
        self._headers = {"Accept": "application/json", "X-Subscription-Token": api_key.strip()}
        self._safe = safe

    async def search(self, search: Search) -> Result[list[FoundPage], SearchRefusal]:
        """Return the pages that were found, best first.

        Errors: ToolUnavailableError where the same search may work later.
        """
        url = f"{self._url}?{urlencode(self._parameters(search))}"
        try:
            response = await self._client.request(
                "GET", url, headers=self._headers, timeout_s=_TIMEOUT_S, max_bytes=_MAX_BYTES
            )
        except (ForbiddenAddressError, InvalidRequestError, RedirectedError):
            return Err(SearchRefusal.NOT_SET_UP)
        except OutgoingError as error:
            raise ToolUnavailableError(
                "The search engine did not answer.", reached=error.reached
            ) from None
        return _pages(response, search)

    def _parameters(self, search: Search) -> dict[str, str]:
        parameters = {
            "q": search.query,
            "count": str(search.count),
            # Left out, it would be that of the United States.
            "country": search.country or "ALL",
            "safesearch": self._safe,
            "text_decorations": "false",
            "result_filter": "web",
        }
        if search.freshness != "none":
            parameters["freshness"] = _FRESHNESS[search.freshness]
        return parameters


def _pages(response: OutgoingResponse, search: Search) -> Result[list[FoundPage], SearchRefusal]:
    status = response.status
    if status in {401, 403} or (status == 422 and _is_about_key(response.body)):
        return Err(SearchRefusal.NOT_SET_UP)
    if status == 429:
        wait = _wait(response.headers)
        if wait is not None and wait > _LONGEST_WAIT:
            return Err(SearchRefusal.USED_UP)
        raise _unavailable("The search engine is asked too often", status, wait)
    if status >= 500 or status == 408:
        raise _unavailable("The search engine is failing", status, _wait(response.headers))
    if status >= 400:
        return Err(SearchRefusal.QUERY)
    try:
        return Ok(pages_in(response.body)[: search.count])
    except UnreadableAnswerError:
        raise _unavailable("The search engine sent no answer to a search", status, None) from None


def _unavailable(words: str, status: int, wait: timedelta | None) -> ToolUnavailableError:
    if wait is not None:
        wait = min(wait, _LONGEST_WAIT)
    return ToolUnavailableError(f"{words} (HTTP {status}).", reached=True, retry_after=wait)


def _is_about_key(body: bytes) -> bool:
    """Say whether an error is about the key: the engine answers so to one that it does not know."""
    try:
        answer = json.loads(body)
        return "SUBSCRIPTION_TOKEN" in str(answer["error"]["code"])
    except (ValueError, RecursionError, LookupError, TypeError):
        return False


def _wait(headers: Mapping[str, str]) -> timedelta | None:
    """Return how long to wait: as the answer says, or until all limits that are used up are over.

    The limits are lists, of one for each window: `1, 0` left, that begin anew in `1, 1419704` s.
    """
    asked = wait_asked_for(headers)
    if asked is not None:
        return asked
    left = headers.get("x-ratelimit-remaining", "").split(",")
    resets = headers.get("x-ratelimit-reset", "").split(",")
    waits = [
        _seconds(reset)
        for remaining, reset in zip(left, resets, strict=False)
        if _seconds(remaining) == 0
    ]
    known = [wait for wait in waits if wait is not None]
    return timedelta(seconds=max(known)) if known else None


def _seconds(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return min(number, 10.0**9) if math.isfinite(number) and number >= 0 else None
