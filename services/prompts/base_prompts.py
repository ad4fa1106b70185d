"""The base prompt as turns read it: the active version, its text, and its placeholders.

Which version is active is part of what a turn reads anyway. A version never changes, so a process
reads its text once, and an activation takes effect with the next turn.
"""

import re
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from cachetools import LRUCache

from schema.actors import SERVICE
from services.database import Database
from services.prompts.layers import BUILT_IN_CONTENT, BUILT_IN_VERSION

PLACEHOLDERS: Final = frozenset({"date"})

# A name in braces and nothing else: JSON and code may stand in a prompt as they are.
_PLACEHOLDER: Final = re.compile(r"\{([a-zA-Z_][a-zA-Z0-9_]*)\}")


def unknown_placeholders(content: str) -> list[str]:
    """Return the unknown names in braces, each once, in order."""
    names = dict.fromkeys(_PLACEHOLDER.findall(content))
    return [name for name in names if name not in PLACEHOLDERS]


def filled(content: str, *, now: datetime, time_zone: str | None) -> str:
    """Return the prompt with the date in the time zone, or in UTC if that is invalid."""
    if "{date}" not in content:
        return content
    return content.replace("{date}", f"{now.astimezone(_zone(time_zone)):%A, %Y-%m-%d}")


def _zone(name: str | None) -> ZoneInfo:
    try:
        return ZoneInfo(name or "UTC")
    except (KeyError, ValueError, OSError):  # an unknown or malformed name
        return ZoneInfo("UTC")


_REMEMBERED: Final = 16
_CONTENT: Final = "SELECT content FROM prompt_versions WHERE prompt_id = $1 AND number = $2"


class ActiveVersion(NamedTuple):
    """The active version of the base prompt."""

    prompt_id: UUID
    number: int


class BasePrompt(NamedTuple):
    """The start of a prompt; `version` names it in records and responses."""

    version: str
    content: str


BUILT_IN: Final = BasePrompt(BUILT_IN_VERSION, BUILT_IN_CONTENT)


class BasePrompts:
    """Caches the base prompt by version; without an active version it is the built-in one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: LRUCache[ActiveVersion, BasePrompt] = LRUCache(_REMEMBERED)

    def known(self, active: ActiveVersion | None) -> BasePrompt | None:
        """Return the cached prompt, or None if it must be read."""
        return BUILT_IN if active is None else self._known.get(active)

    async def read(self, active: ActiveVersion | None) -> BasePrompt:
        """Return the prompt. Errors: DatabaseUnavailableError."""
        known = self.known(active)
        if known is not None or active is None:
            return known or BUILT_IN
        # Users see which version is active, and no words of any.
        async with self._database.statements(SERVICE) as connection:
            content = await connection.fetchval(_CONTENT, active.prompt_id, active.number)
        if content is None:  # deleted since
            return BUILT_IN
        prompt = BasePrompt(f"base {active.number}", content)
        self._known[active] = prompt
        return prompt
