"""The tools that a user may use."""

from typing import Final

from schema.actors import Actor
from schema.pages import Page, PageRequest, decode_cursor, encode_cursor
from schema.result import Err, Ok, Result
from schema.tools import Tool, ToolDefinition
from services.auth.accounts import Account, AccountCache
from services.resources import Unreachable
from services.tools.catalogue import ToolCatalogue
from services.tools.permission import Verdict, audience_of, for_audience, verdict

_ORDER: Final = "name"


class ToolService:
    """Lists the tools that users may use. Errors: DatabaseUnavailableError."""

    def __init__(self, catalogue: ToolCatalogue, accounts: AccountCache) -> None:
        self._catalogue = catalogue
        self._accounts = accounts

    async def list_tools(self, actor: Actor, page: PageRequest) -> Page[Tool]:
        """Return the tools that the actor may use, by name, including those they switched off.

        Errors: InvalidCursorError.
        """
        after = "" if page.cursor is None else decode_cursor(page.cursor, _ORDER, [str])[0]
        account = await self._accounts.get(actor.user_id)
        if account is None:
            return Page([], None)
        usable = (await self._catalogue.current_snapshot()).permitted_to(audience_of(account))
        left = sorted((tool for tool in usable if tool.name > after), key=lambda tool: tool.name)
        shown = left[: page.limit]
        following = encode_cursor(_ORDER, [shown[-1].name]) if len(left) > len(shown) else None
        return Page([_tool_for(tool, account) for tool in shown], following)

    async def get(self, actor: Actor, name: str) -> Result[Tool, Unreachable]:
        """Return one tool. One that administrators disabled is missing for all users."""
        snapshot = await self._catalogue.current_snapshot()
        tool, account = snapshot.find(name), await self._accounts.get(actor.user_id)
        if tool is None or account is None:
            return Err(Unreachable.MISSING)
        audience = audience_of(account)
        match verdict(name, snapshot.settings_of(name), audience):
            case Verdict.SWITCHED_OFF:
                return Err(Unreachable.MISSING)
            case Verdict.FORBIDDEN:
                return Err(Unreachable.FORBIDDEN)
            case Verdict.PERMITTED:
                return Ok(_tool_for(for_audience(tool, audience), account))


def _tool_for(tool: ToolDefinition, account: Account) -> Tool:
    return Tool(
        name=tool.name,
        description=tool.description,
        input_schema=tool.input_schema,
        kind=tool.kind,
        approval=tool.approval,
        retry_class=tool.retry_class,
        timeout_s=tool.timeout.total_seconds(),
        enabled_by_user=tool.name not in account.disabled_tools,
    )
