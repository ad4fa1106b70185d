"""Holds workers at a statement: a transaction of the test locks the row that they need."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final, Self
from uuid import UUID

import asyncpg

from tests.running_everturn.stack import ScriptedStack
from tests.running_everturn.tools import CALL_ID
from tests.running_everturn.waiting import eventually

_TAKE_CHARGE: Final = """
INSERT INTO ledger (id, user_id, turn_id, step, attempt, kind, tool_call_id, model, status,
                    estimated, input_tokens, cost_usd)
SELECT gen_random_uuid(), user_id, id, 1, 1, 'tool', $2, 'held', 'open', true, 0, 0
FROM turns WHERE id = $1
"""
_TAKE_CALL: Final = "SELECT FROM tool_calls WHERE turn_id = $1 FOR UPDATE"
_WAITING: Final = """
SELECT count(*) FROM pg_stat_activity
WHERE wait_event_type = 'Lock' AND starts_with(btrim(query, E'\\n '), $1)
"""
# A backend that waits for a lock does not look whether its client still lives.
_END_WAITING: Final = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'
"""


class Holder:
    """Holds statements about the tool calls of turns until its block is left."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection

    @classmethod
    @asynccontextmanager
    async def open(cls, everturn: ScriptedStack) -> AsyncIterator[Self]:
        """Open a transaction as the superuser; what waits for it at its end is ended with it."""
        connection = await asyncpg.connect(everturn.stack.addresses.migration_database)
        try:
            await connection.execute("BEGIN")
            yield cls(connection)
            await everturn.query(_END_WAITING)
            await connection.execute("ROLLBACK")
        finally:
            await connection.close()

    async def take_charges(self, turns: Iterable[str]) -> None:
        """Let no attempt be noted in the ledger, which is done before it is made."""
        for turn in turns:
            await self._connection.execute(_TAKE_CHARGE, UUID(turn), CALL_ID)

    async def take_calls(self, turns: Iterable[str]) -> None:
        """Let no result be stored."""
        for turn in turns:
            await self._connection.execute(_TAKE_CALL, UUID(turn))

    async def until_waiting(self, everturn: ScriptedStack, statement: str, count: int) -> None:
        """Wait until this number of sessions wait with a statement that begins with this text."""

        async def waiting() -> int:
            (row,) = await everturn.query(_WAITING, statement)
            return int(row["count"])

        await eventually(waiting, lambda seen: seen == count)
