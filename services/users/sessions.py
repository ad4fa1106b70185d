"""Sessions as their users see and end them: families of refresh tokens.

Works as the service: users may not read the table, which holds hashes of tokens. So each statement
names the owner.
"""

from enum import StrEnum
from typing import Final
from uuid import UUID

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import SERVICE, Actor
from schema.audit import AuditAction, ResourceType
from schema.ids import SessionId
from schema.pages import Page, PageRequest, decode_cursor, encode_cursor
from schema.result import Err, Ok, Result
from schema.tables import RefreshTokenRow
from schema.users import SignedInSession
from services.audit import record
from services.auth.callers import Caller
from services.auth.invalidation import CacheInvalidation, Invalidation
from services.auth.sessions import end_session, end_sessions, lock_user
from services.database import Database
from services.resources import Unreachable

_CURSOR: Final = "sessions -createdAt"
_LAST: Final = UUID(int=2**128 - 1)

# A family's id is as old as the family. Each refresh adds a token, for the client as it was then.
_SESSIONS: Final = """
SELECT family_id AS id, min(created_at) AS created_at, max(created_at) AS last_used_at,
       (array_agg(user_agent ORDER BY created_at DESC))[1] AS user_agent,
       (array_agg(network ORDER BY created_at DESC))[1] AS network,
       family_id IS NOT DISTINCT FROM $3 AS current
FROM refresh_tokens WHERE user_id = $1 AND family_id < $2
GROUP BY family_id HAVING bool_or(revoked_at IS NULL AND expires_at > now())
ORDER BY family_id DESC LIMIT $4
"""


class SessionRefusal(StrEnum):
    """Why sessions are not shown or ended."""

    BY_KEY = "by_key"


class SessionService:
    """Lists and ends the sessions of users. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, invalidation: CacheInvalidation) -> None:
        self._database = database
        self._invalidation = invalidation

    async def list_sessions(
        self, actor: Actor, page: PageRequest, *, caller: Caller
    ) -> Result[Page[SignedInSession], SessionRefusal]:
        """Return the actor's active sessions, newest first.

        Errors: InvalidCursorError.
        """
        if caller.by_key:
            return Err(SessionRefusal.BY_KEY)
        last = _LAST
        if page.cursor is not None:
            (last,) = decode_cursor(page.cursor, _CURSOR, (UUID,))
        async with self._database.statements(SERVICE) as connection:
            rows = await connection.fetch(
                _SESSIONS, actor.user_id, last, caller.session_id, page.limit + 1
            )
        shown = [SignedInSession.model_validate(dict(row)) for row in rows[: page.limit]]
        following = encode_cursor(_CURSOR, (shown[-1].id,)) if len(rows) > len(shown) else None
        return Ok(Page(shown, following))

    async def end(
        self, actor: Actor, session_id: SessionId, *, caller: Caller
    ) -> Result[None, SessionRefusal | Unreachable]:
        """End one of the actor's sessions, their access tokens included."""
        if caller.by_key:
            return Err(SessionRefusal.BY_KEY)
        async with self._database.transaction(SERVICE) as session:
            await lock_user(session, actor.user_id)
            if not await end_session(session, actor.user_id, session_id):
                query = select(RefreshTokenRow.user_id).where(
                    col(RefreshTokenRow.family_id) == session_id
                )
                owner = (await session.exec(query.limit(1))).first()
                is_theirs = owner in {None, actor.user_id}
                return Err(Unreachable.MISSING if is_theirs else Unreachable.FORBIDDEN)
            _record(session, actor, ended=1)
        await self._invalidation.publish(Invalidation(sessions=(session_id,)))
        return Ok(None)

    async def end_others(self, actor: Actor, *, caller: Caller) -> Result[None, SessionRefusal]:
        """End all of the actor's sessions but the one that this request belongs to."""
        if caller.by_key:
            return Err(SessionRefusal.BY_KEY)
        async with self._database.transaction(SERVICE) as session:
            await lock_user(session, actor.user_id)
            ended = await end_sessions(session, actor.user_id, but=caller.session_id)
            if ended:
                _record(session, actor, ended=len(ended))
        await self._invalidation.publish(Invalidation(sessions=tuple(ended)))
        return Ok(None)


def _record(session: AsyncSession, actor: Actor, *, ended: int) -> None:
    account, action = (ResourceType.USER, actor.user_id), AuditAction.USER_SESSIONS_ENDED
    record(session, actor, action, account, details={"ended": ended})
