"""Owns running a search: the query made fit, the quota asked, the outcome in words."""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final, assert_never

import structlog
from pydantic import JsonValue

from schema.result import Err
from schema.wire import make_storable
from services.shielding import shielded
from services.tools.definition import ToolExecution, ToolOutcome
from services.tools.ledger import ChargeStatus
from services.tools.web_search.brave import COUNTRIES, BraveSearch, Search, SearchRefusal
from services.tools.web_search.definition import WebSearchInput, web_search
from services.tools.web_search.quota import SearchQuota, UsedUp
from services.tools.web_search.results import told

_log = structlog.get_logger(__name__)

_MOST_WORDS: Final = 50
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_OTHER_CODES: Final = {"UK": "GB", "EL": "GR"}


class WebSearch:
    """A tool that searches the web, as often as the user's plan allows."""

    def __init__(self, engine: BraveSearch, quota: SearchQuota, *, cost_usd: Decimal) -> None:
        self.definition: Final = web_search(cost_usd)
        self._engine = engine
        self._quota = quota

    async def run(
        self, tool_input: Mapping[str, JsonValue], execution: ToolExecution, /
    ) -> ToolOutcome:
        """Return what was found, as JSON.

        Errors: ToolUnavailableError where the same search may work later;
        DatabaseUnavailableError.
        """
        asked = WebSearchInput.model_validate(tool_input)
        query = _one_line(asked.query)
        if not query:
            return _failed("The query is blank.")
        if len(query.split()) > _MOST_WORDS:
            return _failed(f"The query has more than {_MOST_WORDS} words. Shorten it.")
        admission = await self._quota.admit(execution)
        if isinstance(admission, UsedUp):
            return _failed(_used_up(admission))
        status = ChargeStatus.CANCELLED
        try:
            outcome = await self._search(query, asked)
            status = ChargeStatus.FAILED if outcome.is_error else ChargeStatus.SETTLED
        except Exception:
            status = ChargeStatus.FAILED
            raise
        finally:
            await shielded(self._quota.settle(admission, execution, status))
        return outcome

    async def _search(self, query: str, asked: WebSearchInput) -> ToolOutcome:
        country, hint = _country(asked.country)
        found = await self._engine.search(Search(query, asked.count, asked.freshness, country))
        if isinstance(found, Err):
            return _failed(_words_for(found.error))
        return ToolOutcome(output=told(found.value, hint=hint))


def _one_line(text: str) -> str:
    return " ".join(make_storable(_CONTROL.sub(" ", text)).split())


def _country(code: str) -> tuple[str | None, str | None]:
    """Return the engine's code for a country, and what to say where it has none."""
    if not code:
        return None, None
    known = _OTHER_CODES.get(code.upper(), code.upper())
    if known in COUNTRIES:
        return known, None
    return None, f"The search engine can't prefer the country {known}; this is from all countries."


def _used_up(quota: UsedUp) -> str:
    until = quota.until.strftime("%d %B %Y, %H:%M UTC")
    return (
        f"The user's plan allows {quota.limit} web searches a month, and they are used up until "
        f"{until}. Answer without, and say so."
    )


def _words_for(refusal: SearchRefusal) -> str:
    match refusal:
        case SearchRefusal.NOT_SET_UP:
            _log.error("web_search_not_set_up")
            return (
                "Web search is not set up rightly on this server; only its operator can change "
                "that. Answer without, and say so."
            )
        case SearchRefusal.USED_UP:
            _log.error("web_search_used_up")
            return (
                "The web searches of this server are used up for now. Answer without, and say so."
            )
        case SearchRefusal.QUERY:
            return "The search engine does not take this query. Write it in other words."
        case _:
            assert_never(refusal)


def _failed(words: str) -> ToolOutcome:
    """Return an error, which costs nothing: the engine is paid for searches that it made."""
    return ToolOutcome(output=words, is_error=True, cost_usd=Decimal(0))
