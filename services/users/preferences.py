"""The preferences of users, as their owners read and write them."""

from enum import StrEnum
from typing import Final

from sqlalchemy import Uuid, bindparam
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.preferences import Preferences, PreferencesRequest
from schema.result import Err, Ok, Result
from schema.tables import PreferencesRow
from services.auth.accounts import AccountCache
from services.auth.invalidation import CacheInvalidation, Invalidation
from services.database import Database
from services.database.queries import CompiledQuery
from services.resources import Conflict, Versions, touch, version_matches
from services.subscriptions.plans import allows_model

_PREFERENCES: Final = CompiledQuery(
    select(PreferencesRow).where(col(PreferencesRow.user_id) == bindparam("user_id", type_=Uuid))
)


class PreferencesRefusal(StrEnum):
    """Why preferences were not stored."""

    UNKNOWN_MODEL = "unknown_model"


class PreferencesReader:
    """Reads the preferences of users. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, actor: Actor) -> Preferences:
        """Return the actor's preferences, or the defaults if none are stored."""
        async with self._database.statements(actor) as connection:
            row = await _PREFERENCES.first(connection, user_id=actor.user_id)
        return Preferences(version=1) if row is None else Preferences.model_validate(row)


class PreferencesService(PreferencesReader):
    """Stores the preferences of users. Errors: DatabaseUnavailableError."""

    def __init__(
        self,
        database: Database,
        accounts: AccountCache,
        invalidation: CacheInvalidation,
        *,
        models: tuple[str, ...],
    ) -> None:
        super().__init__(database)
        self._accounts = accounts
        self._invalidation = invalidation
        self._models = models

    async def put(
        self, actor: Actor, request: PreferencesRequest, *, versions: Versions
    ) -> Result[Preferences, PreferencesRefusal | Conflict]:
        """Replace all preferences, if their version is one of `versions`."""
        if not await self._is_allowed(actor, request.default_model):
            return Err(PreferencesRefusal.UNKNOWN_MODEL)
        async with self._database.transaction(actor) as session:
            row = await _locked_row(session, actor)
            if not version_matches(row.version, versions):
                return Err(Conflict.VERSION_CHANGED)
            for name, value in request.model_dump().items():
                setattr(row, name, value)
            touch(row)
            await session.flush()
        await self._invalidation.publish(Invalidation(users=(actor.user_id,)))
        return Ok(Preferences.model_validate(row))

    async def _is_allowed(self, actor: Actor, model: str | None) -> bool:
        """Return whether the model exists and the actor's plan allows it."""
        if model is None:
            return True
        account = await self._accounts.get(actor.user_id)
        entitlements = None if account is None else account.entitlements
        return model in self._models and allows_model(entitlements, model)


async def _locked_row(session: AsyncSession, actor: Actor) -> PreferencesRow:
    """Return the row, created if it is missing: of two concurrent writers, one waits."""
    missing = insert(PreferencesRow).values(user_id=actor.user_id).on_conflict_do_nothing()
    await session.exec(missing)
    return await session.get_one(PreferencesRow, actor.user_id, with_for_update=True)
