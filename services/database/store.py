"""Owns the unit of work: it runs as an actor, commits at its end, and says why it could not.

In whose name is said with the BEGIN, by `acting.py`; `plain.py` begins and commits those in plain
SQL.

    DatabaseUnavailableError    the server is gone, starting, full or too slow; try again later
    ActorGoneError              the actor was deleted or disabled while this was done in their name

Row-level security decides by the actor what a transaction sees, so a query that forgets its
filter finds nothing of anybody else's.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

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
from services.database.acting import ActingConnection
from services.database.plain import PATIENCE_S, SERVER_SETTINGS, Connection, PlainTransactions

_DRIVER_ERRORS: Final = (
    *(asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError),
    OSError,
)

# Classes of SQLSTATE: 08 connection, 53 resources, 57P shutdown and start.
_PASSING_STATES: Final = ("08", "53", "57P")

_QUERIES_AT_A_TIME: Final = 4


class DatabaseUnavailableError(Exception):
    """The database can't be reached now."""

    def __init__(self) -> None:
        super().__init__("The database can't be reached now; it is being tried again.")


class ActorGoneError(Exception):
    """The user in whose name something was to be done is gone, or disabled."""

    def __init__(self) -> None:
        super().__init__("The account was deleted or disabled meanwhile.")


class Database:
    """A pool of connections as the application's role.

    Errors: every method raises DatabaseUnavailableError while Postgres is away.
    """

    def __init__(self, url: str, *, pool_size: int = 20) -> None:
        self._plain = PlainTransactions(url, pool_size=pool_size)
        self._turns = asyncio.Semaphore(_QUERIES_AT_A_TIME)
        self._engine = create_async_engine(
            asyncpg_url(url),
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=PATIENCE_S,
            # Bound values are what people wrote; they have no place in an error's text.
            hide_parameters=True,
            connect_args={
                "timeout": 3,
                "command_timeout": 30,
                "server_settings": SERVER_SETTINGS,
                "connection_class": ActingConnection,
            },
        )
        event.listen(self._engine.sync_engine, "checkout", _leave_out_the_dead)

    @asynccontextmanager
    async def transaction(self, actor: Actor) -> AsyncIterator[AsyncSession]:
        """Run one unit of work as `actor`; commit at its end, roll back if it raises."""
        try:
            async with AsyncSession(
                self._engine, expire_on_commit=False, autoflush=False
            ) as session:
                session.sync_session.info["actor"] = actor
                yield session
                await session.commit()
        except (DBAPIError, PoolTimeoutError, asyncpg.InternalClientError, OSError) as error:
            if _is_passing(error):
                raise DatabaseUnavailableError from error
            if isinstance(error, DBAPIError) and _misses(actor, _of_driver(error)):
                raise ActorGoneError from error
            raise

    @asynccontextmanager
    async def statements(
        self, actor: Actor, *, snapshot: bool = False
    ) -> AsyncIterator[Connection]:
        """Run one unit of work in plain SQL as `actor`: the hot path, and reads whose cost counts.

        With `snapshot` all statements see what the first one saw, and write nothing.
        """
        with _explained(actor):
            async with self._plain.transaction(actor, snapshot=snapshot) as connection:
                yield connection

    async def fetch(self, actor: Actor, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Run one query in plain SQL as `actor` in one round trip; `acting_query` made it.

        For what takes the database long: only so many run at a time, the others wait in turn.
        All at once would share its cores, and each wait about as long as all of them take.
        """
        with _explained(actor):
            async with asyncio.timeout(PATIENCE_S):
                await self._turns.acquire()
            try:
                return await self._plain.fetch(actor, query, arguments)
            finally:
                self._turns.release()

    async def ping(self) -> None:
        """Ask the server for a sign of life."""
        try:
            async with self._engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
        except (DBAPIError, PoolTimeoutError, asyncpg.InternalClientError, OSError) as error:
            raise DatabaseUnavailableError from error

    async def close(self) -> None:
        """Give all connections back."""
        await self._plain.close()
        await self._engine.dispose()


@contextmanager
def _explained(actor: Actor) -> Iterator[None]:
    """Say of an error of the driver's what it means, if that is not a mistake of ours."""
    try:
        yield
    except _DRIVER_ERRORS as error:
        if _is_passing(error):
            raise DatabaseUnavailableError from error
        if _misses(actor, error):
            raise ActorGoneError from error
        raise


@event.listens_for(Session, "after_begin")
def _bind_actor(
    session: Session, transaction: SessionTransaction, connection: MapperConnection
) -> None:
    """Have every transaction of a session begin in the name of its actor."""
    driver_connection = connection.connection.driver_connection
    if transaction.nested:
        return
    if isinstance(driver_connection, ActingConnection):
        driver_connection.next_actor = session.info.get("actor")


def _leave_out_the_dead(
    connection: PoolProxiedConnection, _: ConnectionPoolEntry, __: object
) -> None:
    """Give out no connection that died with an earlier server, and none of those beside it."""
    driver_connection = connection.driver_connection
    if not isinstance(driver_connection, ActingConnection):
        return
    if driver_connection.is_closed():
        raise InvalidatePoolError
    # Whoever had it before may have said in whose name, and then begun nothing.
    driver_connection.next_actor = None


def asyncpg_url(url: str) -> str:
    """Return the URL with the driver named, as SQLAlchemy wants it."""
    scheme, separator, rest = url.partition("://")
    if separator and scheme in {"postgres", "postgresql"}:
        return f"postgresql+asyncpg://{rest}"
    return url


def _of_driver(error: DBAPIError) -> BaseException | None:
    """Return what the driver raised; SQLAlchemy wraps it twice."""
    return None if error.orig is None else error.orig.__cause__


def _misses(actor: Actor, error: BaseException | None) -> bool:
    """Whether a row could not be stored since the actor's own is gone.

    It was there when the token was looked at; only the foreign key sees that it has gone since.
    A user writes nothing but rows of their own, so it is they who are missed. The server does not
    say who: it tells no values of a table with policies.
    """
    return (
        isinstance(error, asyncpg.ForeignKeyViolationError)
        and str(error.constraint_name).endswith("_user_id_fkey")
        and actor.type is ActorType.USER
    )


def _is_passing(error: Exception) -> bool:
    """Whether the same statement may work later, with nothing changed but the server."""
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "").startswith(_PASSING_STATES)
    if not isinstance(error, DBAPIError):
        return True
    state = getattr(error.orig, "sqlstate", None) or ""
    return (
        error.connection_invalidated
        or state.startswith(_PASSING_STATES)
        or isinstance(error, InterfaceError)
    )
