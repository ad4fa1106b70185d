"""Owns telling the server in whose name a transaction runs, in no round trip of its own.

It is told with the transaction's BEGIN, or by the one query that the transaction is.
"""

from typing import Any

import asyncpg

from schema.actors import Actor


def begin_as(actor: Actor, *, begin: str = "BEGIN") -> str:
    """Return the statements that begin a transaction of the actor's, for the simple protocol.

    That takes no parameters. Both values are of closed forms, an enum's and a UUID's, so they can
    be written out. What is set for a transaction ends with it: nobody inherits it. `SET` is not
    planned, as a query with `set_config` is: a fifth of what the statement costs.
    """
    return (
        f"{begin}; SET LOCAL everturn.actor_type = '{actor.type.value}'; "
        f"SET LOCAL everturn.user_id = '{actor.user_id}'"
    )


def acting_query(query: str, *, parameters: int) -> str:
    """Return the query as one that says itself in whose name it runs, by two parameters more.

    It is a transaction of its own, at whose end both settings are gone. The server sees to the
    condition, in which no row has a part, before it looks for the first row. It does so at the
    top of the plan only: policies in which no row has a part are below it, as nothing within
    what is materialized is drawn out. Were it ever seen to too late, nobody would be acting, who
    finds nothing.

    Units: `parameters` is how many the query has of its own.
    """
    return f"""
WITH acting AS MATERIALIZED (
    SELECT set_config('everturn.actor_type', ${parameters + 1}, true) IS NOT NULL
       AND set_config('everturn.user_id', ${parameters + 2}, true) IS NOT NULL AS bound
), found AS MATERIALIZED ({query})
SELECT found.* FROM found WHERE (SELECT bound FROM acting)
"""  # noqa: S608 -- a query of ours


class ActingConnection(asyncpg.Connection):
    """A connection whose next transaction begins in the name of an actor, if it is told of one."""

    __slots__ = ("next_actor",)

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 -- asyncpg's own
        super().__init__(*arguments, **options)
        self.next_actor: Actor | None = None

    def transaction(  # type: ignore[override]  # the mapper uses no more of it than there is
        self, **_: object
    ) -> "_ActingTransaction":
        """Return a transaction that is not begun yet, of the server's own isolation."""
        actor, self.next_actor = self.next_actor, None
        return _ActingTransaction(self, "BEGIN" if actor is None else begin_as(actor))


class _ActingTransaction:
    """What the mapper asks of a transaction of the driver."""

    def __init__(self, connection: ActingConnection, begin: str) -> None:
        self._connection = connection
        self._begin = begin

    async def start(self) -> None:
        await self._connection.execute(self._begin)

    async def commit(self) -> None:
        await self._connection.execute("COMMIT")

    async def rollback(self) -> None:
        await self._connection.execute("ROLLBACK")
