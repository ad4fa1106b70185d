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
    request_hash = _hash_of(request)
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


def _hash_of(request: BaseModel) -> bytes:
    """Return what tells one request from another; its type is part of what was asked for."""
    identity = f"{type(request).__name__}\n{request.model_dump_json()}"
    return hashlib.sha256(identity.encode()).digest()
