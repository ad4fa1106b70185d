"""Owns what administrators decided about tools, as every turn reads it: remembered for moments."""

from collections.abc import Mapping
from typing import Final

from cachetools import TTLCache
from sqlmodel import select

from schema.actors import SERVICE
from schema.tables import ToolSettingsRow
from schema.users import UserRole
from services.database import Database
from services.tools.definition import ApprovalPolicy, RetryClass
from services.tools.permission import ToolSetting

_ALL: Final = "all"


class ToolSettings:
    """Looks decisions up. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, *, lifetime_s: float) -> None:
        self._database = database
        self._known: TTLCache[str, Mapping[str, ToolSetting]] = TTLCache(1, lifetime_s)

    async def all(self) -> Mapping[str, ToolSetting]:
        """Return the decisions by the names of their tools; most tools have none."""
        known = self._known.get(_ALL)
        if known is not None:
            return known
        # They are the same for everybody, so they are read and remembered in nobody's name.
        async with self._database.transaction(SERVICE) as session:
            rows = (await session.exec(select(ToolSettingsRow))).all()
        settings = {row.name: setting_from_row(row) for row in rows}
        self._known[_ALL] = settings
        return settings

    def forget(self) -> None:
        """Ask anew at this process's next request or turn."""
        self._known.clear()


def setting_from_row(row: ToolSettingsRow) -> ToolSetting:
    """Return the decision that the row holds."""
    return ToolSetting(
        enabled=row.enabled,
        approval=None if row.approval is None else ApprovalPolicy(row.approval),
        roles=None if row.roles is None else frozenset(map(UserRole, row.roles)),
        retry_class=None if row.retry_class is None else RetryClass(row.retry_class),
        timeout_s=row.timeout_s,
        cost_usd=row.cost_usd,
    )
