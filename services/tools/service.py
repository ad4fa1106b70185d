"""Owns which tools a user has, of all that there are."""

from typing import Final

from schema.actors import Actor
from schema.pages import Page, PageRequest, decode_cursor, encode_cursor
from schema.result import Err, Ok, Result
from schema.tools import Tool
from services.auth.standing import Standing, Standings
from services.refusals import Unreachable
from services.tools.catalogue import ToolCatalogue
from services.tools.definition import ToolDefinition
from services.tools.permission import (
    Audience,
    Verdict,
    for_audience,
    verdict,
)

_ORDER: Final = "name"


class ToolService:
    """Says what tools users have. Errors: DatabaseUnavailableError."""

    def __init__(self, catalogue: ToolCatalogue, standings: Standings) -> None:
        self._catalogue = catalogue
        self._standings = standings

    async def list_tools(self, actor: Actor, page: PageRequest) -> Page[Tool]:
        """Return the tools that the actor may use, by name; those that they switched off too.

        Errors: InvalidCursorError.
        """
        after = "" if page.cursor is None else decode_cursor(page.cursor, _ORDER, [str])[0]
        standing = await self._standings.of(actor.user_id)
        if standing is None:
            return Page([], None)
        usable = (await self._catalogue.current()).permitted_to(_audience(standing))
        left = sorted((tool for tool in usable if tool.name > after), key=lambda tool: tool.name)
        shown = left[: page.limit]
        following = encode_cursor(_ORDER, [shown[-1].name]) if len(left) > len(shown) else None
        return Page([_shown(tool, standing) for tool in shown], following)

    async def get(self, actor: Actor, name: str) -> Result[Tool, Unreachable]:
        """Return one tool. One that is switched off is there for nobody."""
        known = await self._catalogue.current()
        tool, standing = known.find(name), await self._standings.of(actor.user_id)
        if tool is None or standing is None:
            return Err(Unreachable.MISSING)
        audience = _audience(standing)
        match verdict(name, known.decision(name), audience):
            case Verdict.SWITCHED_OFF:
                return Err(Unreachable.MISSING)
            case Verdict.FORBIDDEN:
                return Err(Unreachable.FORBIDDEN)
            case Verdict.PERMITTED:
                return Ok(_shown(for_audience(tool, audience), standing))


def _audience(standing: Standing) -> Audience:
    entitlements = standing.entitlements
    policies = (entitlements.tool_approvals, standing.tool_approvals)
    return Audience(standing.role, entitlements.tools, policies)


def _shown(tool: ToolDefinition, standing: Standing) -> Tool:
    return Tool(
        name=tool.name,
        description=tool.description,
        input_schema=tool.input_schema,
        kind=tool.kind,
        approval=tool.approval,
        retry_class=tool.retry_class,
        timeout_s=tool.timeout.total_seconds(),
        enabled_by_user=tool.name not in standing.disabled_tools,
    )
