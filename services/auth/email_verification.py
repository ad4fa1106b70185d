"""Verification that an email is its account's, by a link that is sent there.

The same link makes a new email the account's: until then it is kept as pending.
"""

from enum import StrEnum

from sqlalchemy.exc import IntegrityError
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import ANONYMOUS, SERVICE, Actor
from schema.audit import AuditAction, ResourceType
from schema.ids import UserId
from schema.mail import MAIL_LIFETIMES, MailKind
from schema.result import Err, Ok, Result
from schema.tables import MailRow, UserRow
from schema.tables.columns import utc_now
from schema.users import SentLink, UserStatus
from services.audit import record
from services.auth.invalidation import CacheInvalidation, Invalidation
from services.auth.sessions import lock_user
from services.database import ActorGoneError, Database
from services.mail.outbox import Outbox, find_link
from services.resources import touch


class VerificationRefusal(StrEnum):
    """Why a link is not sent, or verifies nothing."""

    NO_MAIL = "no_mail"
    NO_EMAIL = "no_email"
    VERIFIED_BEFORE = "verified_before"
    TOO_MANY = "too_many"
    INVALID_LINK = "invalid_link"
    EMAIL_TAKEN = "email_taken"


class EmailVerification:
    """Verifies emails. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, invalidation: CacheInvalidation, outbox: Outbox) -> None:
        self._database = database
        self._invalidation = invalidation
        self._outbox = outbox

    async def send(self, actor: Actor) -> Result[SentLink, VerificationRefusal]:
        """Send a link to the actor's pending email, or to the one that is not verified.

        Links that were sent before stay valid until they expire.
        Errors: ActorGoneError.
        """
        if not self._outbox.is_open:
            return Err(VerificationRefusal.NO_MAIL)
        async with self._database.transaction(SERVICE) as session:
            user = await lock_user(session, actor.user_id)
            if user is None:
                raise ActorGoneError
            address = user.pending_email or user.email
            if address is None:
                return Err(VerificationRefusal.NO_EMAIL)
            if user.email_verified and user.pending_email is None:
                return Err(VerificationRefusal.VERIFIED_BEFORE)
            kind = MailKind.EMAIL_VERIFICATION
            mail = await self._outbox.add(session, kind, user, address=address)
            if mail is None:
                return Err(VerificationRefusal.TOO_MANY)
            account = (ResourceType.USER, user.id)
            record(session, actor, AuditAction.USER_VERIFICATION_REQUESTED, account)
        self._outbox.send(mail)
        lifetime = MAIL_LIFETIMES[kind]
        return Ok(SentLink(email=address, expires_in=int(lifetime.total_seconds())))

    async def confirm(self, token: str) -> Result[None, VerificationRefusal]:
        """Take the address that the token was sent to as verified.

        Idempotency: a repetition changes nothing.
        """
        async with self._database.transaction(SERVICE) as session:
            mail = await find_link(session, MailKind.EMAIL_VERIFICATION, token)
            user = None if mail is None else await lock_user(session, mail.user_id)
            if mail is None or user is None or user.status != UserStatus.ACTIVE:
                return Err(VerificationRefusal.INVALID_LINK)
            result = await _verify(session, user, mail)
            if isinstance(result, Err):
                await session.rollback()
                return result
        await self._invalidation.publish(Invalidation(users=(UserId(user.id),)))
        return Ok(None)


async def _verify(
    session: AsyncSession, user: UserRow, mail: MailRow
) -> Result[None, VerificationRefusal]:
    if user.email == mail.address:
        if user.email_verified:
            return Ok(None)
        action = AuditAction.USER_EMAIL_VERIFIED
    elif user.pending_email == mail.address:
        action = AuditAction.USER_EMAIL_CHANGED
        user.email, user.pending_email = mail.address, None
        try:
            # First alone: the database takes the verification of another email back.
            await session.flush()
        except IntegrityError:
            return Err(VerificationRefusal.EMAIL_TAKEN)
        await session.refresh(user)
    else:
        return Err(VerificationRefusal.INVALID_LINK)
    user.email_verified, mail.used_at = True, utc_now()
    touch(user)
    account = (ResourceType.USER, user.id)
    record(session, ANONYMOUS, action, account, subject_id=user.id)
    await session.flush()
    return Ok(None)
