"""Owns making a thing once for an idempotency key, however often its request comes.

The key is stored in the transaction that makes the thing: either both are there, or neither is.
"""

import hashlib

from pydantic import BaseModel
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.result import Err, Ok, Result
from schema.tables import CreationRow
from services.refusals import Conflict


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


def _hash_of(request: BaseModel) -> bytes:
    """Return what tells one request from another; its type is part of what was asked for."""
    identity = f"{type(request).__name__}\n{request.model_dump_json()}"
    return hashlib.sha256(identity.encode()).digest()
