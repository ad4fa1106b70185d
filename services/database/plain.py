"""Owns transactions in plain SQL, for the hot path and for reads whose cost counts.

The object-relational mapper costs several times what Postgres itself does for such statements
(docs/decisions/0011-plain-sql-on-the-hot-path.md); everything else stays with it. `store.py` is
the way to both.
"""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from schema.actors import Actor
from services.database.acting import begin_as

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"

SERVER_SETTINGS: Final = {
    # Pages come from memory or from a disk without a head. By the default of 4, made for one with,
    # a page of somebody's 5,000 memories was sorted out of all of them: 12 ms, not 0.2.
    "random_page_cost": "1.1",
    # Compiling takes longer than any statement here.
    "jit": "off",
    # How many neighbours an index of vectors looks at: as many as a search ranks. Where a filter
    # leaves too few of them, as while embedders change, it goes on up to so many; what is missing
    # then is found exactly.
    "hnsw.ef_search": "50",
    "hnsw.iterative_scan": "relaxed_order",
    "hnsw.max_scan_tuples": "5000",
}
"""What every connection asks of the server, whatever its own configuration says."""

PATIENCE_S: Final = 5
"""How long to wait for a connection, or for a turn to ask."""

_BEGIN_SNAPSHOT: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
# The driver's internal error is what a connection may give that breaks while it is written to.
_STALE: Final = (
    *(asyncpg.InterfaceError, asyncpg.InternalClientError),
    *(asyncpg.PostgresConnectionError, OSError),
)


class PlainTransactions:
    """A pool of connections as the application's role, without the mapper."""

    def __init__(self, url: str, *, pool_size: int) -> None:
        self._url = url.replace("+asyncpg", "", 1)
        self._pool_size = pool_size
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    @asynccontextmanager
    async def transaction(
        self, actor: Actor, *, snapshot: bool = False
    ) -> AsyncIterator[Connection]:
        """Run one unit of work as `actor`; commit at its end, roll back if it raises.

        With `snapshot` all statements see what the first one saw, and write nothing.
        Errors: those of asyncpg.
        """
        pool = await self._opened()
        begin = _BEGIN_SNAPSHOT if snapshot else "BEGIN"
        connection = await self._begin(pool, actor, begin=begin)
        try:
            yield connection
            await connection.execute("COMMIT")
        except BaseException:
            await _roll_back(connection)
            raise
        finally:
            await pool.release(connection)

    async def fetch(
        self, actor: Actor, query: str, arguments: Sequence[object]
    ) -> list[asyncpg.Record]:
        """Run an `acting_query` as `actor`, which is a transaction of its own.

        Errors: those of asyncpg.
        """
        pool = await self._opened()
        acting = (actor.type.value, str(actor.user_id))
        try:
            return await _fetch(pool, query, *arguments, *acting)
        except _STALE:
            await pool.expire_connections()
        # To read a second time changes nothing.
        return await _fetch(pool, query, *arguments, *acting)

    async def _begin(
        self, pool: "asyncpg.Pool[asyncpg.Record]", actor: Actor, *, begin: str
    ) -> Connection:
        """Begin on a live connection; those that died with an earlier server are dropped."""
        try:
            return await _acquire_bound(pool, actor, begin=begin)
        except _STALE:
            await pool.expire_connections()
        return await _acquire_bound(pool, actor, begin=begin)

    async def _opened(self) -> "asyncpg.Pool[asyncpg.Record]":
        if self._pool is None:
            self._pool = asyncpg.create_pool(
                self._url,
                min_size=0,
                max_size=self._pool_size,
                timeout=3,
                command_timeout=30,
                server_settings=SERVER_SETTINGS,
                init=_read_json,
                # What a connection was left with is the end of its transaction: nothing to reset.
                reset=_keep,
            )
        return await self._pool

    async def close(self) -> None:
        """Give all connections back."""
        if self._pool is not None:
            await self._pool.close()


async def _acquire_bound(
    pool: "asyncpg.Pool[asyncpg.Record]", actor: Actor, *, begin: str
) -> Connection:
    connection = await pool.acquire(timeout=PATIENCE_S)
    try:
        await connection.execute(begin_as(actor, begin=begin))
    except BaseException:
        await pool.release(connection)
        raise
    return connection


async def _fetch(
    pool: "asyncpg.Pool[asyncpg.Record]", query: str, *arguments: object
) -> list[asyncpg.Record]:
    async with pool.acquire(timeout=PATIENCE_S) as connection:
        return await connection.fetch(query, *arguments)


async def _roll_back(connection: Connection) -> None:
    """Take the transaction back; where that fails, end the connection: nobody may inherit it."""
    try:
        await connection.execute("ROLLBACK")
    except (*_STALE, asyncpg.PostgresError):
        connection.terminate()


async def _read_json(connection: Any) -> None:  # noqa: ANN401 -- asyncpg's own type is not exported
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads
    )


async def _keep(_: Any) -> None:  # noqa: ANN401 -- as above
    pass
