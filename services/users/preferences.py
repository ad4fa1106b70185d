"""Owns preferences as their owner reads and writes them, and as turns take them into account."""

from enum import StrEnum

from sqlalchemy.dialects.postgresql import insert
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.preferences import Preferences, PreferencesRequest
from schema.result import Err, Ok, Result
from schema.tables import PreferencesRow
from services.auth.accounts import AccountCache
from services.auth.invalidation import CacheInvalidation, Invalidation
from services.database import Database
from services.resources import Conflict, Versions, is_meant, touch
from services.subscriptions.models import may_ask
from services.users.rows import preferences_from_row


class PreferencesRefusal(StrEnum):
    """Why preferences were not stored."""

    UNKNOWN_MODEL = "unknown_model"


class PreferencesReader:
    """Reads the preferences of users. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, actor: Actor) -> Preferences:
        """Return the actor's preferences; who has stored none has those by default."""
        async with self._database.transaction(actor) as session:
            return await read_preferences(session, actor)


class PreferencesService(PreferencesReader):
    """Keeps the preferences of users. Errors: DatabaseUnavailableError."""

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
        """Store all preferences anew; `versions` are those it is meant for."""
        if not await self._may_ask(actor, request.default_model):
            return Err(PreferencesRefusal.UNKNOWN_MODEL)
        async with self._database.transaction(actor) as session:
            row = await _locked_row(session, actor)
            if not is_meant(row.version, versions):
                return Err(Conflict.VERSION_CHANGED)
            for name, value in request.model_dump().items():
                setattr(row, name, value)
            touch(row)
            await session.flush()
        await self._invalidation.forget(Invalidation(users=(actor.user_id,)))
        return Ok(preferences_from_row(row))

    async def _may_ask(self, actor: Actor, model: str | None) -> bool:
        """Whether the model is there, and is one of the actor's plan."""
        if model is None:
            return True
        account = await self._accounts.of(actor.user_id)
        entitlements = None if account is None else account.entitlements
        return model in self._models and may_ask(entitlements, model)


async def read_preferences(session: AsyncSession, actor: Actor) -> Preferences:
    """Return the preferences of the actor, whose transaction it is."""
    row = await session.get(PreferencesRow, actor.user_id)
    return Preferences(version=1) if row is None else preferences_from_row(row)


async def _locked_row(session: AsyncSession, actor: Actor) -> PreferencesRow:
    """Return the row, made if it is not there: of two who store the first, one waits."""
    made = insert(PreferencesRow).values(user_id=actor.user_id).on_conflict_do_nothing()
    await session.exec(made)
    return await session.get_one(PreferencesRow, actor.user_id, with_for_update=True)
