"""Composition of the `web_search` tool."""

from typing import TYPE_CHECKING

from services.tools.definition import LocalTool
from services.tools.ledger import ToolLedger
from services.tools.local_tools import WorkerOnlyTool
from services.tools.web_search.definition import web_search
from workers.composition.foundation import Foundation

if TYPE_CHECKING:
    from services.outgoing.client import OutgoingClient


def make_web_search(foundation: Foundation, outgoing: "OutgoingClient | None") -> LocalTool | None:
    """Return the tool, or None if no key is set; without a client it is only listed."""
    settings = foundation.settings
    if not settings.brave_api_key:
        return None
    if outgoing is None:
        return WorkerOnlyTool(web_search(settings.web_search_cost_usd))
    # Imports an HTTP client, which the API does not need.
    from services.tools.web_search.brave import BraveSearch  # noqa: PLC0415
    from services.tools.web_search.tool import SearchQuota, WebSearch  # noqa: PLC0415

    engine = BraveSearch(
        outgoing,
        api_key=settings.brave_api_key.get_secret_value(),
        base_url=settings.brave_base_url,
        safe=settings.web_search_safe,
    )
    quota = SearchQuota(foundation.database, ToolLedger(foundation.database))
    return WebSearch(engine, quota, cost_usd=settings.web_search_cost_usd)
