"""Resources that clients create and change: refusals, versions, and creation exactly once.

An idempotency key is stored in the transaction that creates the resource: either both exist or
neither does. A key outlives its resource, and then creates nothing in its place.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Protocol, TypeAlias, TypeVar
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import SERVICE, Actor
from schema.result import Err, Ok, Result
from schema.tables import CreationRow
from schema.tables.columns import utc_now
from schema.turn_options import TurnOptions
from services.database import Database


class Unreachable(StrEnum):
    """Why an actor sees no row with this id."""

    MISSING = "missing"
    FORBIDDEN = "forbidden"


class Conflict(StrEnum):
    """Why a valid request conflicts with the current state."""

    VERSION_CHANGED = "version_changed"
    KEY_REUSED = "key_reused"
    RESOURCE_DELETED = "resource_deleted"


class ToolRefusal(StrEnum):
    """Why a tool, or a server of tools, can't be registered."""

    NAME_TAKEN = "name_taken"
    NO_ENCRYPTION_KEY = "no_encryption_key"
    TOO_MANY = "too_many"


@dataclass(frozen=True, slots=True)
class LimitReached:
    """The plan allows no more than `limit` of this resource."""

    limit: int


@dataclass(frozen=True, slots=True)
class InvalidField:
    """A field of the right type with an invalid value."""

    path: str
    message: str


Versions: TypeAlias = AbstractSet[int] | None
"""The versions that a change applies to; None for any version."""


class Versioned(Protocol):
    """A row whose changes are counted."""

    version: int
    updated_at: datetime


def version_matches(version: int | None, versions: Versions) -> bool:
    """Return whether `version` is one of those that a change applies to."""
    return versions is None or version in versions


def touch(row: Versioned) -> None:
    """Count a change of the row and set its time."""
    row.version += 1
    row.updated_at = utc_now()


async def why_unreachable(database: Database, table: type[SQLModel], row_id: UUID) -> Unreachable:
    """Return whether a row exists, even if the policies hide it."""
    key: Any = table.id  # type: ignore[attr-defined]  # every table asked about has an id
    async with database.transaction(SERVICE) as session:
        found = (await session.exec(select(key).where(col(key) == row_id))).first()
    return Unreachable.MISSING if found is None else Unreachable.FORBIDDEN


class Named(Protocol):
    """A resource known by its name, which a later resource may have again."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def created_at(self) -> datetime:
        """When it was created."""


T = TypeVar("T")
E = TypeVar("E")
N = TypeVar("N", bound=Named)

Reserve: TypeAlias = Callable[[AsyncSession], Awaitable[Result[object, E]]]
"""Takes the locks that a creation needs, and returns the id of the new resource."""


async def create_once(
    database: Database,
    actor: Actor,
    key: str | None,
    *,
    request: BaseModel,
    resource_id: UUID | str | Reserve[E],
    create: Callable[[AsyncSession], Awaitable[Result[T, E]]],
    find: Callable[[str], Awaitable[Result[T, object]]],
    work_as: Actor | None = None,
) -> Result[T, E | Conflict]:
    """Create a resource, or return the one that the same key and request created before.

    A refusal of `create` rolls the transaction back, so its key stays free. `find` gets the id of
    the earlier resource, outside the transaction. `work_as` is the actor of the transaction, if
    another.
    Errors: `Conflict.KEY_REUSED` for another request; `Conflict.RESOURCE_DELETED`.
    """
    async with database.transaction(work_as or actor) as session:
        if isinstance(resource_id, UUID | str):
            new_id = str(resource_id)
        else:
            reserved = await resource_id(session)
            if isinstance(reserved, Err):
                return reserved
            new_id = str(reserved.value)
        claimed = await _claim(session, actor, key, request=request, resource_id=new_id)
        if isinstance(claimed, Err):
            return claimed
        if claimed.value is None:
            created = await create(session)
            if isinstance(created, Err):
                await release_key(session)
            return created
    found = await find(claimed.value)
    return Err(Conflict.RESOURCE_DELETED) if isinstance(found, Err) else found


async def _claim(
    session: AsyncSession, actor: Actor, key: str | None, *, request: BaseModel, resource_id: str
) -> Result[str | None, Conflict]:
    """Store that the key creates `resource_id`, or return the id that it created before.

    Waits for another transaction with the same key.
    """
    if key is None:
        return Ok(None)
    # The type is part of the request.
    fingerprint = Fingerprint(type(request).__name__, request)
    stored = insert(CreationRow).values(
        user_id=actor.user_id, key=key, request_hash=fingerprint.hash, resource_id=resource_id
    )
    claimed = stored.on_conflict_do_nothing().returning(col(CreationRow.key))
    if (await session.exec(claimed)).first() is not None:
        return Ok(None)
    earlier = await session.get_one(CreationRow, (actor.user_id, key))
    if not fingerprint.matches(earlier.request_hash):
        return Err(Conflict.KEY_REUSED)
    return Ok(earlier.resource_id)


async def release_key(session: AsyncSession) -> None:
    """Roll back the transaction that claimed a key, so that the key stays free.

    A returned refusal would otherwise commit, and use up a key that created nothing.
    """
    await session.rollback()


def named_id(name: str, created_at: datetime) -> str:
    """Return an id that distinguishes a named resource from later ones of the same name."""
    return f"{name} {created_at.astimezone(UTC).isoformat()}"


async def find_named(found: Awaitable[Result[N, object]], resource_id: str) -> Result[N, object]:
    """Return the resource found by its name if it is the one with this `named_id`."""
    result = await found
    if isinstance(result, Ok):
        resource = result.value
        if named_id(resource.name, resource.created_at) != resource_id:
            return Err(Unreachable.MISSING)
    return result


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What distinguishes requests with the same idempotency key; its `hash` is stored.

    `subject` is what the request concerns, besides its fields; `without` is left out. Fields at
    their defaults don't count, so a release that adds some still recognises earlier requests.
    """

    subject: object
    request: BaseModel
    without: str | None = None

    @property
    def hash(self) -> bytes:
        """What is stored: to compute it differently, `matches` would have to know both ways."""
        given = self.request.model_dump(
            mode="json", exclude_defaults=True, exclude=self._left_out()
        )
        return self._hash_of(json.dumps(given, sort_keys=True))

    def matches(self, stored: bytes) -> bool:
        """Return whether `stored` is the hash of this request, by whichever release."""
        return stored == self.hash or stored in map(self._hash_of, self._earlier())

    def _earlier(self) -> Iterator[str]:
        """Yield the fields as they were hashed before: all of them, then without newer ones."""
        fields = self.request.model_dump_json(exclude=self._left_out())
        yield fields
        newer = _NEWER | _NEWER_OF_TURNS if isinstance(self.request, TurnOptions) else _NEWER
        yield json.dumps(
            _without_newer(json.loads(fields), newer), ensure_ascii=False, separators=(",", ":")
        )

    def _left_out(self) -> set[str] | None:
        return None if self.without is None else {self.without}

    def _hash_of(self, fields: str) -> bytes:
        return hashlib.sha256(f"{self.subject}\n{fields}".encode()).digest()


# Not hashed before budgets of days, tokens and keys, parents of messages, and options of turns
# were added.
_NEWER: Final = frozenset(
    {
        *("budget", "daily_budget_usd", "budget_tokens", "daily_budget_tokens"),
        *("parent_id", "max_thinking_tokens"),
    }
)
_NEWER_OF_TURNS: Final = frozenset({*TurnOptions.model_fields, "metadata", "attachments"})


def _without_newer(fields: Any, newer: frozenset[str]) -> Any:  # noqa: ANN401 -- any JSON
    if not isinstance(fields, dict):
        return fields
    return {
        name: _without_newer(value, newer)
        for name, value in fields.items()
        if value not in (None, []) or name not in newer
    }
