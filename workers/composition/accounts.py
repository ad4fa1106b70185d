"""Account services and their caches, built from the settings."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import httpx2

from api.service_groups import AccountServices
from services.auth.accounts import AccountCache
from services.auth.callers import Callers
from services.auth.credentials import AccessTokens, ApiKeyReader, Passwords
from services.auth.external_accounts import ExternalAccounts
from services.auth.invalidation import CacheInvalidation
from services.auth.issuers import ExternalIssuers
from services.auth.service import AuthService
from services.auth.sessions import LiveSessions, Sessions
from services.users.administration import UserAdministration
from services.users.api_keys import ApiKeyService
from services.users.export import UserExport
from services.users.preferences import PreferencesService
from services.users.service import UserDeletion, UserService
from workers.composition.foundation import Foundation


@dataclass(frozen=True, slots=True)
class KnownPeople:
    """A process's caches of accounts, and what invalidates them in all processes."""

    accounts: AccountCache
    sessions: LiveSessions
    api_keys: ApiKeyReader
    invalidation: CacheInvalidation


def make_known_people(foundation: Foundation) -> KnownPeople:
    """Return the empty caches of accounts, sessions and keys."""
    database, lifetime_s = foundation.database, foundation.settings.account_cache_s
    accounts = AccountCache(database, lifetime_s=lifetime_s)
    sessions = LiveSessions(database, lifetime_s=lifetime_s)
    keys = ApiKeyReader(database, lifetime_s=lifetime_s)
    invalidation = CacheInvalidation(
        foundation.redis, accounts=accounts, sessions=sessions, api_keys=keys
    )
    return KnownPeople(accounts, sessions, keys, invalidation)


@asynccontextmanager
async def open_accounts(
    foundation: Foundation, known: KnownPeople
) -> AsyncIterator[AccountServices]:
    """Build the account services.

    Errors: WeakSecretError.
    """
    settings, database = foundation.settings, foundation.database
    secret = settings.auth_secret.get_secret_value() if settings.auth_secret else ""
    tokens = AccessTokens(secret, lifetime=timedelta(minutes=settings.access_token_minutes))
    sessions = Sessions(tokens, refresh_lifetime=timedelta(days=settings.refresh_token_days))
    passwords, accounts, invalidation = Passwords(), known.accounts, known.invalidation
    async with httpx2.AsyncClient() as http:
        issuers = ExternalIssuers(settings.issuers, http)
        outside = ExternalAccounts(database, issuers, lifetime_s=settings.account_cache_s)
        try:
            yield AccountServices(
                callers=Callers(tokens, known.api_keys, outside, accounts, sessions=known.sessions),
                sign_in=AuthService(database, sessions, passwords, invalidation),
                users=UserService(database, passwords, invalidation),
                preferences=PreferencesService(
                    database, accounts, invalidation, models=settings.models
                ),
                api_keys=ApiKeyService(database, invalidation),
                exports=UserExport(database),
                deletion=UserDeletion(database, passwords, invalidation),
                administration=UserAdministration(database, invalidation),
            )
        finally:
            await issuers.close()
