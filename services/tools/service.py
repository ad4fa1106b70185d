"""Owns which tools a user has, of all that there are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cachetools import TTLCache

from schema.actors import Actor, acting_user
from schema.ids import UserId
from schema.pages import Page, PageRequest, decode_cursor, encode_cursor
from schema.result import Err, Ok, Result
from schema.tools import Tool
from services.auth.standing import Standings
from services.database import Database
from services.refusals import Unreachable
from services.tools.catalogue import ToolCatalogue
from services.tools.definition import ApprovalPolicy, ToolDefinition
from services.tools.permission import (
    Audience,
    Verdict,
    for_audience,
    policies,
    verdict,
)

_ORDER: Final = "name"
_REMEMBERED: Final = 50_000
_WISHES: Final = "SELECT disabled_tools, tool_approvals FROM preferences WHERE user_id = $1"


@dataclass(frozen=True, slots=True)
class _Wishes:
    """What a user wants of tools."""

    disabled: frozenset[str]
    approvals: Mapping[str, ApprovalPolicy]


class ToolService:
    """Says what tools users have. Errors: DatabaseUnavailableError."""

    def __init__(
        self,
        database: Database,
        catalogue: ToolCatalogue,
        standings: Standings,
        *,
        lifetime_s: float,
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._standings = standings
        self._wishes: TTLCache[UserId, _Wishes] = TTLCache(_REMEMBERED, lifetime_s)

    async def offered(self, user_id: UserId) -> Sequence[ToolDefinition]:
        """Return the tools that the model is offered in a turn of this user, in a stable order.

        Somebody who is gone or disabled has none.
        """
        audience = await self._audience(user_id)
        disabled = (await self._wishes_of(user_id)).disabled
        return (await self._catalogue.current()).offered_to(audience, disabled=disabled)

    async def list_tools(self, actor: Actor, page: PageRequest) -> Page[Tool]:
        """Return the tools that the actor may use, by name; those that they switched off too.

        Errors: InvalidCursorError.
        """
        after = "" if page.cursor is None else decode_cursor(page.cursor, _ORDER, [str])[0]
        audience = await self._audience(actor.user_id)
        known = await self._catalogue.current()
        usable = () if audience is None else known.permitted_to(audience)
        left = sorted((tool for tool in usable if tool.name > after), key=lambda tool: tool.name)
        shown = left[: page.limit]
        disabled = (await self._wishes_of(actor.user_id)).disabled
        following = encode_cursor(_ORDER, [shown[-1].name]) if len(left) > len(shown) else None
        return Page([_shown(tool, disabled) for tool in shown], following)

    async def get(self, actor: Actor, name: str) -> Result[Tool, Unreachable]:
        """Return one tool. One that is switched off is there for nobody."""
        known = await self._catalogue.current()
        tool, audience = known.find(name), await self._audience(actor.user_id)
        if tool is None or audience is None:
            return Err(Unreachable.MISSING)
        match verdict(name, known.decision(name), audience):
            case Verdict.SWITCHED_OFF:
                return Err(Unreachable.MISSING)
            case Verdict.FORBIDDEN:
                return Err(Unreachable.FORBIDDEN)
            case Verdict.PERMITTED:
                disabled = (await self._wishes_of(actor.user_id)).disabled
                return Ok(_shown(for_audience(tool, audience), disabled))

    async def _audience(self, user_id: UserId) -> Audience | None:
        standing = await self._standings.of(user_id)
        if standing is None:
            return None
        entitlements, wishes = standing.entitlements, await self._wishes_of(user_id)
        return Audience(
            standing.role, entitlements.tools, (entitlements.tool_approvals, wishes.approvals)
        )

    async def _wishes_of(self, user_id: UserId) -> _Wishes:
        known = self._wishes.get(user_id)
        if known is not None:
            return known
        async with self._database.statements(acting_user(user_id)) as connection:
            row = await connection.fetchrow(_WISHES, user_id)
        wishes = _Wishes(frozenset(), {})
        if row is not None:
            wishes = _Wishes(frozenset(row["disabled_tools"]), policies(row["tool_approvals"]))
        self._wishes[user_id] = wishes
        return wishes


def _shown(tool: ToolDefinition, disabled: frozenset[str]) -> Tool:
    return Tool(
        name=tool.name,
        description=tool.description,
        input_schema=tool.input_schema,
        kind=tool.kind,
        approval=tool.approval,
        retry_class=tool.retry_class,
        timeout_s=tool.timeout.total_seconds(),
        enabled_by_user=tool.name not in disabled,
    )
