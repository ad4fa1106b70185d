"""Owns the base prompt as turns read it: which version is active, and its words.

Which one is active is part of what a turn reads anyway. A version never changes, so its words are
read once by a process, and an activation counts from the very next turn on.
"""

from typing import Final, NamedTuple
from uuid import UUID

from cachetools import LRUCache

from schema.actors import SERVICE
from services.database import Database
from services.prompts.layers import BUILT_IN_CONTENT, BUILT_IN_VERSION

_REMEMBERED: Final = 16
_CONTENT: Final = "SELECT content FROM prompt_versions WHERE prompt_id = $1 AND number = $2"


class ActiveVersion(NamedTuple):
    """The version of the base prompt that is active."""

    prompt_id: UUID
    number: int


class BasePrompt(NamedTuple):
    """What opens a prompt; `version` names it wherever it is kept or shown."""

    version: str
    content: str


BUILT_IN: Final = BasePrompt(BUILT_IN_VERSION, BUILT_IN_CONTENT)


class BasePrompts:
    """Knows the base prompt by its version; without an active one the built-in serves."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: LRUCache[ActiveVersion, BasePrompt] = LRUCache(_REMEMBERED)

    def known(self, active: ActiveVersion | None) -> BasePrompt | None:
        """Return the prompt without asking anybody, or None where it has to be read."""
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
