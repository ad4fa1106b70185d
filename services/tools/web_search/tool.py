"""Calls of `web_search`: the query is normalised, the plan's quota checked, the search sent.

The ledger counts a user's searches. A search is admitted under a lock of its user, and its row says
so from then on by its model. So exactly as many simultaneous searches are admitted as the quota
allows: rows that still wait are not counted, and no other search counts between this one's count
and its mark.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final, assert_never

import structlog
from pydantic import JsonValue

from schema.ids import UserId, new_id
from schema.result import Err
from schema.subscriptions import Period
from schema.tables.columns import utc_now
from schema.wire import make_storable
from services.database import Connection, Database
from services.database.connections import lock
from services.shielding import shielded
from services.subscriptions.ledger import ChargeStatus
from services.subscriptions.periods import period_at
from services.subscriptions.service import read_terms
from services.subscriptions.usage import WEB_SEARCH_MODEL
from services.tools.definition import ToolExecution, ToolOutcome
from services.tools.ledger import ToolLedger
from services.tools.web_search.brave import (
    COUNTRIES,
    BraveSearch,
    Search,
    SearchRefusal,
    results_as_text,
)
from services.tools.web_search.definition import WebSearchInput, web_search

_log = structlog.get_logger(__name__)

_MOST_WORDS: Final = 50
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_OTHER_CODES: Final = {"UK": "GB", "EL": "GR"}

# A call is one search, however many attempts it takes; failed ones don't count.
_COUNT: Final = """
SELECT count(DISTINCT (turn_id, step, tool_call_id)) FROM ledger
WHERE user_id = $1 AND created_at >= $2 AND created_at < $3
  AND kind = 'tool' AND model = $4 AND status <> 'failed'
  AND (turn_id, step, tool_call_id) <> ($5, $6, $7)
"""

# The row exists unless the tool is free, by the settings or an administrator's decision.
_ADMIT: Final = """
INSERT INTO ledger AS charge (id, user_id, turn_id, step, attempt, kind, tool_call_id, model,
                              status, estimated, cost_usd)
VALUES ($1, $2, $3, $4, $5, 'tool', $6, $7, 'open', true, 0)
ON CONFLICT (turn_id, step, attempt, kind, tool_call_id) DO UPDATE SET model = excluded.model
WHERE charge.status = 'open'
RETURNING xmax = 0 AS is_new
"""


@dataclass(frozen=True, slots=True)
class Admission:
    """An admitted search; if `is_free`, this module settles its row."""

    is_free: bool


@dataclass(frozen=True, slots=True)
class QuotaExceeded:
    """The quota of a period is used up."""

    limit: int
    until: datetime


class SearchQuota:
    """Admits searches. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, ledger: ToolLedger) -> None:
        self._database = database
        self._ledger = ledger

    async def admit(self, execution: ToolExecution) -> Admission | QuotaExceeded:
        """Take one search of the user's quota, or refuse.

        Trials, which run outside a turn, are not counted.
        Idempotency: all attempts of a call count as one search.
        """
        if execution.turn_id is None:
            return Admission(is_free=False)
        user_id = execution.actor.user_id
        async with self._database.statements(execution.actor) as connection:
            terms = await read_terms(connection, user_id)
            limit = terms.entitlements.max_web_searches
            period = period_at(utc_now(), anchor=terms.anchor)
            if limit is not None:
                await lock(connection, "web searches", of=user_id)
                if await _count(connection, user_id, period, execution) >= limit:
                    return QuotaExceeded(limit, period.end)
            is_new = await connection.fetchval(
                _ADMIT,
                new_id(),
                user_id,
                *_attempt(execution),
                execution.tool_call_id,
                WEB_SEARCH_MODEL,
            )
        return Admission(is_free=bool(is_new))

    async def settle(
        self, admission: Admission, execution: ToolExecution, status: ChargeStatus
    ) -> None:
        """Record how a free search ended."""
        if admission.is_free:
            await self._ledger.settle(
                execution, cost_usd=Decimal(0), status=status, estimated=False
            )


async def _count(
    connection: Connection, user_id: UserId, period: Period, execution: ToolExecution
) -> int:
    """Count the user's other searches of a period."""
    call = (execution.turn_id, execution.step, execution.tool_call_id)
    return int(
        await connection.fetchval(
            _COUNT, user_id, period.start, period.end, WEB_SEARCH_MODEL, *call
        )
    )


def _attempt(execution: ToolExecution) -> tuple[object, ...]:
    return (execution.turn_id, execution.step, execution.attempt)


class WebSearch:
    """A tool that searches the web, as often as the user's plan allows."""

    def __init__(self, engine: BraveSearch, quota: SearchQuota, *, cost_usd: Decimal) -> None:
        self.definition: Final = web_search(cost_usd)
        self._engine = engine
        self._quota = quota

    async def run(
        self, tool_input: Mapping[str, JsonValue], execution: ToolExecution, /
    ) -> ToolOutcome:
        """Return the results as JSON.

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
        if isinstance(admission, QuotaExceeded):
            return _failed(_quota_exceeded(admission))
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
            return _failed(_sentence_for(found.error))
        return ToolOutcome(output=results_as_text(found.value, hint=hint))


def _one_line(text: str) -> str:
    return " ".join(make_storable(_CONTROL.sub(" ", text)).split())


def _country(code: str) -> tuple[str | None, str | None]:
    """Return the engine's code for a country, or None and a hint if it does not support it."""
    if not code:
        return None, None
    known = _OTHER_CODES.get(code.upper(), code.upper())
    if known in COUNTRIES:
        return known, None
    return (
        None,
        f"The search engine doesn't support the country {known}; all are searched.",
    )


def _quota_exceeded(quota: QuotaExceeded) -> str:
    until = quota.until.strftime("%d %B %Y, %H:%M UTC")
    return (
        f"The user has reached their plan's limit of {quota.limit} web searches a month. It resets "
        f"on {until}. Answer without searching, and say so."
    )


def _sentence_for(refusal: SearchRefusal) -> str:
    match refusal:
        case SearchRefusal.NOT_CONFIGURED:
            _log.error("web_search_not_configured")
            return (
                "Web search is misconfigured on this server; only its operator can fix that. "
                "Answer without searching, and say so."
            )
        case SearchRefusal.QUOTA_EXCEEDED:
            _log.error("web_search_quota_exceeded")
            return (
                "This server has reached its web search quota for now. "
                "Answer without searching, and say so."
            )
        case SearchRefusal.QUERY:
            return "The search engine rejected this query. Rephrase it."
        case _:
            assert_never(refusal)


def _failed(words: str) -> ToolOutcome:
    """Return an error, which costs nothing: only successful searches are billed."""
    return ToolOutcome(output=words, is_error=True, cost_usd=Decimal(0))
