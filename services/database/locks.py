"""Owns locks by name, on what no single row stands for; the end of the transaction unlocks."""

from typing import Final

from sqlmodel import func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from services.database.plain import Connection

_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"


async def lock(work: "AsyncSession | Connection", what: str, *, of: object = None) -> None:
    """Wait until no other transaction has locked `what`, of the same owner where there is one.

    Only the statements behind it see what the other transaction wrote.
    """
    name = what if of is None else f"{what} of {of}"
    if isinstance(work, AsyncSession):
        await work.exec(select(func.pg_advisory_xact_lock(func.hashtextextended(name, 0))))
    else:
        await work.execute(_LOCK, name)
