"""Owns putting together what knows people: who calls, who may sign in, what is whose."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import httpx

from services.auth.api_keys import ApiKeyReader
from services.auth.callers import Callers
from services.auth.forgetting import Forgetting
from services.auth.issuers import OutsideIssuers
from services.auth.live_sessions import LiveSessions
from services.auth.outside_accounts import OutsideAccounts
from services.auth.passwords import Passwords
from services.auth.service import AuthService
from services.auth.sessions import Sessions
from services.auth.standing import Standings
from services.auth.tokens import AccessTokens
from services.users.administration import UserAdministration
from services.users.api_keys import ApiKeyService
from services.users.deletion import UserDeletion
from services.users.export import UserExport
from services.users.preferences import PreferencesService
from services.users.service import UserService
from workers.composition.foundation import Foundation


@dataclass(frozen=True, slots=True)
class KnownPeople:
    """What a process remembers of people, and what has all processes forget it."""

    standings: Standings
    sessions: LiveSessions
    api_keys: ApiKeyReader
    forgetting: Forgetting


@dataclass(frozen=True, slots=True)
class Accounts:
    """What knows people."""

    callers: Callers
    auth: AuthService
    users: UserService
    preferences: PreferencesService
    api_keys: ApiKeyService
    exports: UserExport
    deletion: UserDeletion
    administration: UserAdministration


def make_known_people(foundation: Foundation) -> KnownPeople:
    """Return what remembers people, which is nobody yet."""
    database, lifetime_s = foundation.database, foundation.settings.standing_lifetime_s
    standings = Standings(database, lifetime_s=lifetime_s)
    sessions = LiveSessions(database, lifetime_s=lifetime_s)
    keys = ApiKeyReader(database, lifetime_s=lifetime_s)
    forgetting = Forgetting(foundation.redis, standings=standings, sessions=sessions, api_keys=keys)
    return KnownPeople(standings, sessions, keys, forgetting)


@asynccontextmanager
async def open_accounts(foundation: Foundation, known: KnownPeople) -> AsyncIterator[Accounts]:
    """Make what knows people.

    Errors: WeakSecretError.
    """
    settings, database = foundation.settings, foundation.database
    secret = settings.auth_secret.get_secret_value() if settings.auth_secret else ""
    tokens = AccessTokens(secret, lifetime=timedelta(minutes=settings.access_token_minutes))
    sessions = Sessions(tokens, refresh_lifetime=timedelta(days=settings.refresh_token_days))
    passwords, standings, forgetting = Passwords(), known.standings, known.forgetting
    async with httpx.AsyncClient() as http:
        issuers = OutsideIssuers(settings.issuers, http)
        outside = OutsideAccounts(database, issuers, lifetime_s=settings.standing_lifetime_s)
        try:
            yield Accounts(
                callers=Callers(
                    tokens, known.api_keys, outside, standings, sessions=known.sessions
                ),
                auth=AuthService(database, sessions, passwords, forgetting),
                users=UserService(database, passwords, forgetting),
                preferences=PreferencesService(
                    database, standings, forgetting, models=settings.models
                ),
                api_keys=ApiKeyService(database, forgetting),
                exports=UserExport(database),
                deletion=UserDeletion(database, forgetting),
                administration=UserAdministration(database, forgetting),
            )
        finally:
            await issuers.close()
