"""Owns putting the API together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from temporalio.client import Client

from api.dependencies import ApiServices
from api.turn_starter import TurnStarter
from services.auth.api_keys import ApiKeyReader
from services.auth.callers import Callers
from services.auth.passwords import Passwords
from services.auth.service import AuthService
from services.auth.standing import Standings
from services.auth.tokens import AccessTokens
from services.chats.service import ChatService
from services.events.feed import EventFeed
from services.events.hub import EventHub
from services.events.snapshots import Snapshots
from services.settings import Settings
from services.turns.acceptance import Limits, TurnAcceptance
from services.turns.cancellation import TurnCancellation
from services.turns.erasure import Erasure
from workers.composition.foundation import Foundation


@asynccontextmanager
async def open_api_services(
    foundation: Foundation, client: Client, *, eager: bool
) -> AsyncIterator[ApiServices]:
    """Make what the routes call.

    Errors: WeakSecretError.
    """
    settings, database = foundation.settings, foundation.database
    secret = settings.auth_secret.get_secret_value() if settings.auth_secret else ""
    tokens = AccessTokens(secret, lifetime=timedelta(minutes=settings.access_token_minutes))
    standings = Standings(database, lifetime_s=settings.standing_lifetime_s)
    async with EventHub(foundation.redis) as hub:
        yield ApiServices(
            database=database,
            redis=foundation.redis,
            callers=Callers(
                tokens,
                ApiKeyReader(database, lifetime_s=settings.standing_lifetime_s),
                standings,
            ),
            standings=standings,
            auth=AuthService(
                database,
                tokens,
                Passwords(),
                refresh_lifetime=timedelta(days=settings.refresh_token_days),
            ),
            chats=ChatService(database),
            acceptance=TurnAcceptance(database, _limits(settings)),
            cancellation=TurnCancellation(database),
            ending=foundation.ending,
            erasure=Erasure(database, foundation.events),
            feed=EventFeed(hub, Snapshots(database), keep_alive_s=settings.keep_alive_s),
            starter=TurnStarter(client, eager=eager),
            answer_wait_s=settings.answer_wait_s,
        )


def _limits(settings: Settings) -> Limits:
    return Limits(
        max_content_chars=settings.max_content_chars,
        max_queued_turns=settings.max_queued_turns,
        models=settings.models,
        default_model=settings.default_model,
    )
