"""Units of work: each runs as an actor, commits at its end, and explains why it could not.

    DatabaseUnavailableError    the server is gone, starting, full or too slow, or chose this one
                                of several that waited for each other; try again later
    ActorGoneError              the actor was deleted or disabled in the meantime

Row-level security decides by the actor what a transaction sees, so a query without its filter
still finds nothing of another user's.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Final, cast
from weakref import WeakValueDictionary

import asyncpg
from sqlalchemy import event, text
from sqlalchemy.engine import Connection as MapperConnection
from sqlalchemy.exc import DBAPIError, InterfaceError, InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor, ActorType
from schema.ids import ChatId, UserId
from services.database.addresses import driver_arguments
from services.database.connections import (
    SERVER_SETTINGS,
    WAIT_TIMEOUT_S,
    ActorConnection,
    Connection,
    DriverPool,
)
from services.database.queries import AttributeRow, acting_query

_DRIVER_ERRORS: Final = (
    *(asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError),
    OSError,
)

# Beginnings of SQLSTATE: 08 connection, 53 resources, 57P shutdown and start; 40001 and 40P01 for
# the one of several transactions that was rolled back so that the others could go on.
_TRANSIENT_STATES: Final = ("08", "53", "57P", "40001", "40P01")

_SLOW_QUERIES_AT_A_TIME: Final = 4
_SLOW_QUERIES_OF_A_USER: Final = 2
_PARTS: Final = 4
"""The part of the connections that a user's crowd may have: others don't wait behind all of it."""


class DatabaseUnavailableError(Exception):
    """The database is unavailable."""

    def __init__(self) -> None:
        super().__init__("The database is unavailable; retrying.")


class ActorGoneError(Exception):
    """The acting user was deleted or disabled."""

    def __init__(self) -> None:
        super().__init__("The account was deleted or disabled.")


class _Shares:
    """Lets each user do so many things at a time; the others of a user wait in turn."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._of_users: WeakValueDictionary[UserId, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def place(self, actor: Actor) -> AsyncIterator[None]:
        """Take a place of the acting user while the block runs; services have their own bounds.

        Errors: TimeoutError.
        """
        if actor.type is not ActorType.USER:
            yield
            return
        share = self._of_users.get(actor.user_id) or asyncio.Semaphore(self._size)
        self._of_users[actor.user_id] = share
        async with asyncio.timeout(WAIT_TIMEOUT_S):
            await share.acquire()
        try:
            yield
        finally:
            share.release()


class Database:
    """A pool of connections as the application's role.

    Errors: every method raises DatabaseUnavailableError while Postgres is unavailable.
    """

    def __init__(self, url: str, *, pool_size: int = 20) -> None:
        self._driver = DriverPool(url, pool_size=pool_size)
        self._shares = _Shares(max(1, pool_size // _PARTS))
        self._slow_queries = asyncio.Semaphore(_SLOW_QUERIES_AT_A_TIME)
        self._slow_shares = _Shares(_SLOW_QUERIES_OF_A_USER)
        self._engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=partial(
                asyncpg.connect,
                **driver_arguments(url),
                timeout=3,
                command_timeout=30,
                server_settings=SERVER_SETTINGS,
                connection_class=ActorConnection,
            ),
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=WAIT_TIMEOUT_S,
            # Bound values are what people wrote: they must not appear in errors.
            hide_parameters=True,
        )
        event.listen(self._engine.sync_engine, "checkout", _drop_dead_connections)

    @asynccontextmanager
    async def transaction(self, actor: Actor) -> AsyncIterator[AsyncSession]:
        """Run one unit of work as `actor` in a SQLModel session; commit at its end.

        Rolls back if it raises.
        """
        try:
            async with (
                self._shares.place(actor),
                AsyncSession(self._engine, expire_on_commit=False, autoflush=False) as session,
            ):
                session.sync_session.info["actor"] = actor
                yield session
                await session.commit()
        except (DBAPIError, PoolTimeoutError, asyncpg.InternalClientError, OSError) as error:
            if _is_transient(error):
                raise DatabaseUnavailableError from error
            if isinstance(error, DBAPIError) and _lacks_actor(actor, _of_driver(error)):
                raise ActorGoneError from error
            raise

    @asynccontextmanager
    async def statements(
        self, actor: Actor, *, snapshot: bool = False, locking: ChatId | None = None
    ) -> AsyncIterator[Connection]:
        """Run one unit of work as `actor` on the driver: the hot path, and most reads.

        With `snapshot` all statements see the same state, and write nothing. What decides about the
        turns and branches of a chat is `locking` it, if it is there: that puts all of it in order.
        """
        with _translated_errors(actor):
            async with (
                self._shares.place(actor),
                self._driver.transaction(actor, snapshot=snapshot, locking=locking) as connection,
            ):
                yield connection

    async def fetch(self, actor: Actor, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Run one `acting_query` as `actor` in one round trip.

        For queries that take the database long: only a few run at a time, the others wait in turn.
        All at once would share its cores, and each would take about as long as all of them.
        """
        with _translated_errors(actor):
            async with self._slow_shares.place(actor):
                async with asyncio.timeout(WAIT_TIMEOUT_S):
                    await self._slow_queries.acquire()
                try:
                    return await self._driver.fetch(actor, query, arguments)
                finally:
                    self._slow_queries.release()

    def reader(self, actor: Actor) -> "ActorReader":
        """Return what reads a single query as `actor` in one round trip."""
        return ActorReader(self._driver, self._shares, actor)

    async def ping(self) -> None:
        """Check that the server answers."""
        try:
            async with self._engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
        except (DBAPIError, PoolTimeoutError, asyncpg.InternalClientError, OSError) as error:
            raise DatabaseUnavailableError from error

    async def close(self) -> None:
        """Close all connections."""
        await self._driver.close()
        await self._engine.dispose()


class ActorReader:
    """Reads queries as an actor, each in a transaction and a round trip of its own.

    Errors: DatabaseUnavailableError.
    """

    def __init__(self, driver: DriverPool, shares: _Shares, actor: Actor) -> None:
        self._driver = driver
        self._shares = shares
        self._actor = actor

    async def fetch(
        self, query: str, *args: object, record_class: type[AttributeRow]
    ) -> list[AttributeRow]:
        """Return all rows of a query."""
        acting = acting_query(query, parameters=len(args))
        with _translated_errors(self._actor):
            async with self._shares.place(self._actor):
                rows = await self._driver.fetch(
                    self._actor, acting, args, record_class=record_class
                )
        return cast("list[AttributeRow]", rows)

    async def fetchrow(
        self, query: str, *args: object, record_class: type[AttributeRow]
    ) -> AttributeRow | None:
        """Return the first row of a query, if there is any."""
        rows = await self.fetch(query, *args, record_class=record_class)
        return rows[0] if rows else None


@contextmanager
def _translated_errors(actor: Actor) -> Iterator[None]:
    """Translate errors of the driver that are not defects of ours."""
    try:
        yield
    except _DRIVER_ERRORS as error:
        if _is_transient(error):
            raise DatabaseUnavailableError from error
        if _lacks_actor(actor, error):
            raise ActorGoneError from error
        raise


@event.listens_for(Session, "after_begin")
def _bind_actor(
    session: Session, transaction: SessionTransaction, connection: MapperConnection
) -> None:
    """Let every transaction of a session begin as its actor."""
    driver_connection = connection.connection.driver_connection
    if transaction.nested:
        return
    if isinstance(driver_connection, ActorConnection):
        driver_connection.next_actor = session.info.get("actor")


def _drop_dead_connections(
    connection: PoolProxiedConnection, _: ConnectionPoolEntry, __: object
) -> None:
    """Replace connections that died with an earlier server: this one and its whole pool."""
    driver_connection = connection.driver_connection
    if not isinstance(driver_connection, ActorConnection):
        return
    if driver_connection.is_closed():
        raise InvalidatePoolError
    # Its last user may have set an actor, and then begun no transaction.
    driver_connection.next_actor = None


def _of_driver(error: DBAPIError) -> BaseException | None:
    """Return the driver's own error; SQLAlchemy wraps it twice."""
    return None if error.orig is None else error.orig.__cause__


def _lacks_actor(actor: Actor, error: BaseException | None) -> bool:
    """Return whether a row could not be stored because the actor's own row is gone.

    It was there when the token was checked; only the foreign key notices that it has gone since.
    Users write only rows of their own, so the missing user is the actor. The server does not say
    which: it reveals no values of a table with policies.
    """
    return (
        isinstance(error, asyncpg.ForeignKeyViolationError)
        and str(error.constraint_name).endswith("_user_id_fkey")
        and actor.type is ActorType.USER
    )


def _is_transient(error: Exception) -> bool:
    """Return whether the same statement may succeed later, once the server is well again."""
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "").startswith(_TRANSIENT_STATES)
    if not isinstance(error, DBAPIError):
        return True
    state = getattr(error.orig, "sqlstate", None) or ""
    return (
        error.connection_invalidated
        or state.startswith(_TRANSIENT_STATES)
        or isinstance(error, InterfaceError)
    )
