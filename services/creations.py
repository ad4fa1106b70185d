"""Owns making a thing once for an idempotency key, however often its request comes.

The key is stored in the transaction that makes the thing: either both are there, or neither is.
A key outlives what it made, and then makes nothing in its place.
"""

import hashlib
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from pydantic import BaseModel
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.result import Err, Ok, Result
from schema.tables import CreationRow
from services.refusals import Conflict


class Named(Protocol):
    """What has no id: a name, which another may have after it, and when it was made."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def created_at(self) -> datetime:
        """When it was made."""


T = TypeVar("T")
N = TypeVar("N", bound=Named)


async def claim(
    session: AsyncSession,
    actor: Actor,
    key: str | None,
    *,
    request: BaseModel,
    resource_id: object,
) -> Result[str | None, Conflict]:
    """Note that `request` makes `resource_id`, or return the id of what it made before.

    Without a key there is nothing to note. A request of the same key that is under way elsewhere
    is waited for.
    Errors: `Conflict.KEY_REUSED` where the key came with another request.
    """
    if key is None:
        return Ok(None)
    # Its type is part of what was asked for.
    request_hash = hash_of_request(type(request).__name__, request)
    noted = insert(CreationRow).values(
        user_id=actor.user_id, key=key, request_hash=request_hash, resource_id=str(resource_id)
    )
    made = noted.on_conflict_do_nothing().returning(col(CreationRow.key))
    if (await session.exec(made)).first() is not None:
        return Ok(None)
    earlier = await session.get_one(CreationRow, (actor.user_id, key))
    if earlier.request_hash != request_hash:
        return Err(Conflict.KEY_REUSED)
    return Ok(earlier.resource_id)


async def give_back(session: AsyncSession) -> None:
    """Undo the transaction in which a key was claimed, so that it stays free for another request.

    A refusal is returned, not raised, and what is returned ends the transaction well: the key
    would be used up by what it has not made.
    """
    await session.rollback()


def made_before(found: Result[T, object]) -> Result[T, Conflict]:
    """Return what a key made before, as it was found; what was not has been deleted since."""
    return Err(Conflict.MADE_AND_DELETED) if isinstance(found, Err) else found


def named_made_before(found: Result[N, object], resource_id: str) -> Result[N, Conflict]:
    """Return what a key made before, unless what was found has but its name."""
    if isinstance(found, Ok) and named_id(found.value.name, found.value.created_at) != resource_id:
        return Err(Conflict.MADE_AND_DELETED)
    return made_before(found)


def named_id(name: str, created_at: datetime) -> str:
    """Return what tells a thing without an id from a later one of its name."""
    return f"{name} {created_at.astimezone(UTC).isoformat()}"


def hash_of_request(asked: object, request: BaseModel, *, without: str | None = None) -> bytes:
    """Return what tells one request from another under the same key.

    `asked` is what is wanted beside the fields of the request, of which `without` is left out.
    Hashes are stored: another way of making them would refuse requests that are repeated.
    """
    fields = request.model_dump_json(exclude=None if without is None else {without})
    return hashlib.sha256(f"{asked}\n{fields}".encode()).digest()
