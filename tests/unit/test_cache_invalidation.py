"""Invalidations: what processes of the API publish, and what they do with it."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self, cast
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from schema.ids import UserId
from services.auth.accounts import AccountCache
from services.auth.credentials import ApiKeyReader
from services.auth.invalidation import CacheInvalidation, Invalidation
from services.auth.sessions import LiveSessions
from services.database import Database
from services.events.writer import API_CHANNEL

KEY_HASH = hashlib.sha256(b"evk_x").digest()
SESSION, OTHER_SESSION = uuid4(), uuid4()


@dataclass
class FakeDatabase:
    """Says that every sign-in holds, or that none does any more."""

    holds: bool = True
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def statements(self, actor: object) -> AsyncIterator[Self]:
        yield self

    async def fetch(self, statement: str, session_ids: Collection[UUID]) -> list[dict[str, UUID]]:
        found = [{"family_id": session_id} for session_id in session_ids if self.holds]
        self.asked.set()
        await self.may_answer.wait()
        return found


class FakeRedis:
    """Records what is published, or fails as configured."""

    def __init__(self, error: Exception | None = None) -> None:
        self.published: list[tuple[str, Any]] = []
        self._error = error

    async def publish(self, channel: str, message: str) -> int:
        if self._error is not None:
            raise self._error
        self.published.append((channel, json.loads(message)))
        return 1


@dataclass
class Scene:
    """One process, as far as it remembers."""

    database: FakeDatabase
    redis: FakeRedis
    sessions: LiveSessions
    invalidation: CacheInvalidation


def scene(error: Exception | None = None) -> Scene:
    database, redis = FakeDatabase(), FakeRedis(error)
    database.may_answer.set()
    of_database = cast("Database", database)
    sessions = LiveSessions(of_database, lifetime_s=60)
    invalidation = CacheInvalidation(
        cast("Redis", redis),
        accounts=AccountCache(of_database, lifetime_s=60),
        sessions=sessions,
        api_keys=ApiKeyReader(of_database, lifetime_s=60),
    )
    return Scene(database, redis, sessions, invalidation)


async def test_a_message_names_only_ids_and_hashes() -> None:
    user_id, sender = UserId(uuid4()), scene()

    await sender.invalidation.publish(Invalidation(users=(user_id,), sessions=(SESSION,)))
    await sender.invalidation.publish(Invalidation(key_hashes=(KEY_HASH,)))
    await sender.invalidation.publish(Invalidation(all_users=True))

    assert sender.redis.published == [
        (API_CHANNEL, {"users": [str(user_id)], "sessions": [str(SESSION)]}),
        (API_CHANNEL, {"key_hashes": [KEY_HASH.hex()]}),
        (API_CHANNEL, {"all_users": True}),
    ]


@pytest.mark.parametrize(
    "outdated",
    [
        Invalidation(all_users=True),
        Invalidation(users=(UserId(uuid4()), UserId(uuid4()))),
        Invalidation(sessions=(SESSION,), key_hashes=(KEY_HASH,)),
    ],
)
def test_a_message_is_read_as_it_was_meant(outdated: Invalidation) -> None:
    assert Invalidation.model_validate_json(outdated.model_dump_json()) == outdated


async def test_only_entries_named_by_another_process_are_invalidated() -> None:
    here = scene()
    for session_id in (SESSION, OTHER_SESSION):
        await here.sessions.is_active(session_id)
    here.database.holds = False

    here.invalidation.hear(Invalidation(sessions=(SESSION,)).model_dump_json().encode())

    assert not await here.sessions.is_active(SESSION)
    assert await here.sessions.is_active(OTHER_SESSION)


async def test_a_read_from_before_an_invalidation_is_not_cached_after_it() -> None:
    here = scene()
    here.database.may_answer.clear()
    asked = asyncio.create_task(here.sessions.is_active(SESSION))
    await here.database.asked.wait()

    here.database.holds = False
    here.invalidation.hear(Invalidation(sessions=(SESSION,)).model_dump_json().encode())
    here.database.may_answer.set()

    assert await asked
    assert not await here.sessions.is_active(SESSION)


async def test_possibly_missed_messages_clear_the_whole_cache() -> None:
    here = scene()
    await here.sessions.is_active(SESSION)
    here.database.holds = False

    here.invalidation.interrupt()

    assert not await here.sessions.is_active(SESSION)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff",
        b"null",
        b"[]",
        b'"all_users"',
        b'{"sessions": "x"}',
        b'{"sessions": ["x"]}',
        b'{"key_hashes": ["x"]}',
        b'{"quotas": ["x"]}',
    ],
)
async def test_unreadable_invalidations_are_skipped_and_logged_once(message: bytes) -> None:
    here = scene()
    await here.sessions.is_active(SESSION)
    here.database.holds = False

    with capture_logs() as logs:
        here.invalidation.hear(message)
        here.invalidation.hear(message)

    assert [log["event"] for log in logs] == ["cache_invalidation_unreadable"]
    assert await here.sessions.is_active(SESSION)


@pytest.mark.parametrize("error", [ConnectionRefusedError(), TimeoutError()])
async def test_a_failed_broadcast_still_invalidates_locally(error: Exception) -> None:
    here = scene(error)
    await here.sessions.is_active(SESSION)
    here.database.holds = False

    with capture_logs() as logs:
        await here.invalidation.publish(Invalidation(sessions=(SESSION,)))

    assert [log["event"] for log in logs] == ["cache_invalidation_not_published"]
    assert not await here.sessions.is_active(SESSION)
