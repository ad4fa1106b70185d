"""Connections to Postgres, whose transactions begin as an actor with no extra round trip.

The mapper's sessions and the driver's pool both use them; `store.py` is the way to both. The
object-relational mapper costs several times what Postgres itself does for a statement, so the hot
path and most reads run without it (docs/decisions/0011-plain-sql-on-the-hot-path.md).
"""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias
from uuid import UUID

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from sqlmodel import func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.ids import ChatId
from services.database.addresses import driver_arguments

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"

SERVER_SETTINGS: Final = {
    # Pages come from memory or an SSD. With the default of 4, meant for spinning disks, a page of a
    # user's 5,000 memories was sorted out of all of them: 12 ms, not 0.2.
    "random_page_cost": "1.1",
    # Compiling takes longer than any statement here.
    "jit": "off",
    # Values don't change how a statement is best run: tables are read by keys, and vectors of one
    # user compared one by one. Planning each time was a quarter of what Postgres does for a turn.
    "plan_cache_mode": "force_generic_plan",
    # How many neighbours an index of vectors looks at: as many as a search ranks. Where a filter
    # leaves too few, as while embedders change, it continues up to `max_scan_tuples`; the rest is
    # found exactly.
    "hnsw.ef_search": "50",
    "hnsw.iterative_scan": "relaxed_order",
    "hnsw.max_scan_tuples": "5000",
}
"""The settings of every connection, whatever the server's own configuration."""

WAIT_TIMEOUT_S: Final = 5
"""How long to wait for a free connection, or for other slow queries to finish."""

_BEGIN_SNAPSHOT: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"
# A connection that breaks while it is written to may raise the driver's internal error.
_STALE: Final = (
    *(asyncpg.InterfaceError, asyncpg.InternalClientError),
    *(asyncpg.PostgresConnectionError, OSError),
)


def begin_as(actor: Actor, *, begin: str = "BEGIN", locking: ChatId | None = None) -> str:
    """Return the statements that begin a transaction as `actor`, for the simple protocol.

    It begins with the lock of a chat that it is `locking`: one round trip less. The simple protocol
    takes no parameters. The values are closed forms, an enum's and UUIDs, so they are safe to write
    out. Both settings end with the transaction. `SET` is not planned, unlike a query with
    `set_config`: a fifth of what the statement costs.
    """
    statements = (
        f"{begin}; SET LOCAL everturn.actor_type = '{actor.type.value}'; "
        f"SET LOCAL everturn.user_id = '{actor.user_id}'"
    )
    if locking is not None:
        statements += f"; SELECT FROM chats WHERE id = '{UUID(str(locking))}' FOR UPDATE"
    return statements


async def lock(work: "AsyncSession | Connection", what: str, *, of: object = None) -> None:
    """Lock a name until the transaction ends, for what no single row stands for.

    `of` is the owner, where each owner has a lock of their own. Only later statements see what
    the transaction that held the lock before has written.
    """
    name = what if of is None else f"{what} of {of}"
    if isinstance(work, AsyncSession):
        await work.exec(select(func.pg_advisory_xact_lock(func.hashtextextended(name, 0))))
    else:
        await work.execute(_LOCK, name)


class ActorConnection(asyncpg.Connection):
    """A mapper's connection whose next transaction begins as `next_actor`, if one is set."""

    __slots__ = ("next_actor",)

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 -- asyncpg's own
        super().__init__(*arguments, **options)
        self.next_actor: Actor | None = None

    def transaction(  # type: ignore[override]  # the mapper uses no other part of it
        self, **_: object
    ) -> "_ActorTransaction":
        """Return a transaction that has not begun yet, with the server's default isolation."""
        actor, self.next_actor = self.next_actor, None
        return _ActorTransaction(self, "BEGIN" if actor is None else begin_as(actor))


class _ActorTransaction:
    """The methods of a driver's transaction that the mapper calls."""

    def __init__(self, connection: ActorConnection, begin: str) -> None:
        self._connection = connection
        self._begin = begin

    async def start(self) -> None:
        await self._connection.execute(self._begin)

    async def commit(self) -> None:
        await self._connection.execute("COMMIT")

    async def rollback(self) -> None:
        await self._connection.execute("ROLLBACK")


class DriverPool:
    """A pool of the driver's connections with the application's role."""

    def __init__(self, url: str, *, pool_size: int) -> None:
        self._arguments = driver_arguments(url)
        self._pool_size = pool_size
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    @asynccontextmanager
    async def transaction(
        self, actor: Actor, *, snapshot: bool = False, locking: ChatId | None = None
    ) -> AsyncIterator[Connection]:
        """Run one unit of work as `actor`; commit at its end, roll back if it raises.

        With `snapshot` all statements see the same state, and write nothing. `locking` a chat, it
        has the chat's turns and branches to itself.
        Errors: those of asyncpg.
        """
        pool = await self._opened()
        begin = begin_as(actor, begin=_BEGIN_SNAPSHOT if snapshot else "BEGIN", locking=locking)
        connection = await self._begin(pool, begin)
        try:
            yield connection
            await connection.execute("COMMIT")
        except BaseException:
            await _roll_back(connection)
            raise
        finally:
            await pool.release(connection)

    async def fetch(
        self,
        actor: Actor,
        query: str,
        arguments: Sequence[object],
        *,
        record_class: type[asyncpg.Record] | None = None,
    ) -> list[asyncpg.Record]:
        """Run an `acting_query` as `actor`, in its own transaction.

        Errors: those of asyncpg.
        """
        pool = await self._opened()
        given = (*arguments, actor.type.value, str(actor.user_id))
        try:
            return await _fetch(pool, query, given, record_class)
        except _STALE:
            await pool.expire_connections()
        # Reading a second time changes nothing.
        return await _fetch(pool, query, given, record_class)

    async def _begin(self, pool: "asyncpg.Pool[asyncpg.Record]", begin: str) -> Connection:
        """Begin on a live connection; those that died with an earlier server are dropped."""
        try:
            return await _acquire_bound(pool, begin)
        except _STALE:
            await pool.expire_connections()
        return await _acquire_bound(pool, begin)

    async def _opened(self) -> "asyncpg.Pool[asyncpg.Record]":
        if self._pool is None:
            self._pool = asyncpg.create_pool(
                **self._arguments,
                min_size=0,
                max_size=self._pool_size,
                timeout=3,
                command_timeout=30,
                server_settings=SERVER_SETTINGS,
                init=_read_json,
                # A connection comes back at the end of its transaction: nothing to reset.
                reset=_keep,
            )
        return await self._pool

    async def close(self) -> None:
        """Close all connections."""
        if self._pool is not None:
            await self._pool.close()


async def _acquire_bound(pool: "asyncpg.Pool[asyncpg.Record]", begin: str) -> Connection:
    connection = await pool.acquire(timeout=WAIT_TIMEOUT_S)
    try:
        await connection.execute(begin)
    except BaseException:
        # It may have begun, and wait for a lock. A scope of anyio cancels each wait
        # again, so there is no time for a ROLLBACK.
        connection.terminate()
        await pool.release(connection)
        raise
    return connection


async def _fetch(
    pool: "asyncpg.Pool[asyncpg.Record]",
    query: str,
    arguments: Sequence[object],
    record_class: type[asyncpg.Record] | None,
) -> list[asyncpg.Record]:
    async with pool.acquire(timeout=WAIT_TIMEOUT_S) as connection:
        return await connection.fetch(query, *arguments, record_class=record_class)


async def _roll_back(connection: Connection) -> None:
    """Roll the transaction back; if that fails, close the connection: none may inherit it."""
    try:
        await connection.execute("ROLLBACK")
    except (*_STALE, asyncpg.PostgresError):
        connection.terminate()
    except BaseException:
        # Cancelled again, as scopes of anyio do with each wait.
        connection.terminate()
        raise


async def _read_json(connection: Any) -> None:  # noqa: ANN401 -- asyncpg's own type is not exported
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads
    )


async def _keep(_: Any) -> None:  # noqa: ANN401 -- as above
    pass
