"""Owns that what a change has made wrong is forgotten, by every process of the API at once.

Each of them remembers for moments who users are, which sign-ins hold and whom keys speak for. The
one that changes it forgets by itself, and tells the others on a channel of Redis. While Redis is
away, those learn of it when their moments are over.
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
from services.auth.api_keys import ApiKeyReader
from services.auth.live_sessions import LiveSessions
from services.events.writer import API_CHANNEL

_log = structlog.get_logger(__name__)

# Redis answers in less than 1 ms; a change is not kept waiting for one that does not.
_PATIENCE_S: Final = 0.25


class Invalidation(BaseModel):
    """What a change has made wrong, as processes tell each other: ids, and the hashes of keys.

    `everybody` are all users: a plan is another, or the one that is the default.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_bytes="hex", val_json_bytes="hex"
    )

    everybody: bool = False
    users: tuple[UserId, ...] = ()
    sessions: tuple[UUID, ...] = ()
    key_hashes: tuple[bytes, ...] = ()


class CacheInvalidation:
    """Has this process and all others forget."""

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
        self._has_wondered = False

    async def forget(self, outdated: Invalidation) -> None:
        """Forget what was changed, here at once, and tell the others; never fails.

        To be called behind the commit: what is asked for before it is as it was.
        """
        self._forget(outdated)
        told = outdated.model_dump_json(exclude_defaults=True)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._redis.publish(API_CHANNEL, told)
        except (RedisError, OSError, TimeoutError) as error:
            _log.warning("cache_invalidation_not_published", error=type(error).__name__)

    def hear(self, message: bytes) -> None:
        """Forget what a process has changed. What can't be read, as of a later version, is left."""
        try:
            outdated = Invalidation.model_validate_json(message)
        except ValidationError:
            if not self._has_wondered:
                self._has_wondered = True
                _log.warning("cache_invalidation_unreadable", size=len(message))
            return
        self._forget(outdated)

    def interrupt(self) -> None:
        """Forget everything: what was told meanwhile was not heard."""
        self._accounts.forget_everybody()
        self._sessions.forget_all()
        self._api_keys.forget_all()

    def _forget(self, outdated: Invalidation) -> None:
        if outdated.everybody:
            self._accounts.forget_everybody()
        for user_id in outdated.users:
            self._accounts.forget(user_id)
        for session_id in outdated.sessions:
            self._sessions.forget(session_id)
        for key_hash in outdated.key_hashes:
            self._api_keys.forget(key_hash)
