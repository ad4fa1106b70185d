"""Invalidation of caches after a change, in every process of the API at once.

Each process caches accounts, sign-ins and API keys for a few seconds. The process that changes one
invalidates its own cache, and publishes the invalidation on a Redis channel for the others. While
Redis is unavailable, their entries expire instead.
"""

import asyncio
from typing import Final
from uuid import UUID

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from schema.ids import UserId
from services.auth.accounts import AccountCache
from services.auth.credentials import ApiKeyReader
from services.auth.sessions import LiveSessions
from services.events.writer import API_CHANNEL

_log = structlog.get_logger(__name__)

# Redis answers in less than 1 ms; a change does not wait for one that is slow.
_PUBLISH_TIMEOUT_S: Final = 0.25


class Invalidation(BaseModel):
    """The cache entries that a change made stale, as processes publish them.

    `all_users` is for changes of a plan, or of the default plan.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_bytes="hex", val_json_bytes="hex"
    )

    all_users: bool = False
    users: tuple[UserId, ...] = ()
    sessions: tuple[UUID, ...] = ()
    key_hashes: tuple[bytes, ...] = ()


class CacheInvalidation:
    """Invalidates caches in this process and all others."""

    def __init__(
        self,
        redis: Redis,
        *,
        accounts: AccountCache,
        sessions: LiveSessions,
        api_keys: ApiKeyReader,
    ) -> None:
        self._redis = redis
        self._accounts = accounts
        self._sessions = sessions
        self._api_keys = api_keys
        self._has_warned = False

    async def publish(self, stale: Invalidation) -> None:
        """Invalidate here at once, and publish it to the other processes; never fails.

        Call it after the commit: entries read before it are still the old ones.
        """
        self._apply(stale)
        message = stale.model_dump_json(exclude_defaults=True)
        try:
            async with asyncio.timeout(_PUBLISH_TIMEOUT_S):
                await self._redis.publish(API_CHANNEL, message)
        except (RedisError, OSError, TimeoutError) as error:
            _log.warning("cache_invalidation_not_published", error=type(error).__name__)

    def hear(self, message: bytes) -> None:
        """Apply an invalidation of another process; ignore what a later version may publish."""
        try:
            stale = Invalidation.model_validate_json(message)
        except ValidationError:
            if not self._has_warned:
                self._has_warned = True
                _log.warning("cache_invalidation_unreadable", size=len(message))
            return
        self._apply(stale)

    def interrupt(self) -> None:
        """Invalidate everything, since messages may have been missed."""
        self._accounts.invalidate_all()
        self._sessions.invalidate_all()
        self._api_keys.invalidate_all()

    def _apply(self, stale: Invalidation) -> None:
        if stale.all_users:
            self._accounts.invalidate_all()
        for user_id in stale.users:
            self._accounts.invalidate(user_id)
        for session_id in stale.sessions:
            self._sessions.invalidate(session_id)
        for key_hash in stale.key_hashes:
            self._api_keys.invalidate(key_hash)
