"""The outbox: mails that wait for their workflow, and the tokens of links that were sent.

A mail is stored in the transaction of what it is about, without its text. No token is stored: an
attempt to send a mail makes one and stores its hash first. So a crash between the two can't leave a
link that doesn't work, and the links of one mail are as few as its attempts whose end is unknown.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from datetime import timedelta
from typing import Final, NamedTuple, TypeAlias
from uuid import UUID

from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.ids import MailId, UserId, new_id
from schema.mail import MAIL_LIFETIMES, MailKind, MailReference
from schema.tables import MailRow, UserRow
from schema.tables.columns import utc_now

MOST_PER_HOUR: Final = 5
"""Of one kind to one user, so that nobody's mailbox is filled by others."""
_HOUR: Final = timedelta(hours=1)
_SECRET_BYTES: Final = 32
_TOKEN: Final = re.compile(r"(?P<mail_id>[0-9a-f]{32})(?P<secret>[0-9a-f]{64})", re.ASCII)

OnMail: TypeAlias = Callable[[MailReference], None]
"""Called once a mail's transaction has committed: starts its workflow, and waits for nothing."""


class Outbox:
    """Takes mails; without `on_mail` this installation sends none."""

    def __init__(self, on_mail: OnMail | None) -> None:
        self._on_mail = on_mail

    @property
    def is_open(self) -> bool:
        """Whether mail is sent at all."""
        return self._on_mail is not None

    async def add(
        self,
        session: AsyncSession,
        kind: MailKind,
        user: UserRow,
        *,
        address: str | None = None,
        bound_to: bytes | None = None,
    ) -> MailReference | None:
        """Store a mail to a user, in the transaction of its cause.

        None if no mail is sent, the user has no address, or had enough of them within an hour.
        """
        to = address or user.email
        if not self.is_open or to is None or await _count(session, kind, user) >= MOST_PER_HOUR:
            return None
        now = utc_now()
        row = MailRow(
            id=new_id(),
            user_id=user.id,
            kind=kind.value,
            address=to,
            bound_to=bound_to,
            created_at=now,
            expires_at=now + MAIL_LIFETIMES[kind],
        )
        session.add(row)
        await session.flush()
        return MailReference(mail_id=MailId(row.id), user_id=UserId(user.id), kind=kind)

    def send(self, *mails: MailReference | None) -> None:
        """Start sending mails whose transaction has committed."""
        for mail in mails:
            if mail is not None and self._on_mail is not None:
                self._on_mail(mail)


async def _count(session: AsyncSession, kind: MailKind, user: UserRow) -> int:
    query = select(func.count()).select_from(MailRow)
    lately = query.where(
        col(MailRow.user_id) == user.id,
        col(MailRow.kind) == kind.value,
        col(MailRow.created_at) > utc_now() - _HOUR,
    )
    return (await session.exec(lately)).one()


class NewToken(NamedTuple):
    """A token for a link, and the hash of it that is stored."""

    token: str
    hash: bytes


def new_token(mail_id: MailId) -> NewToken:
    """Return a token that names its mail, so that nothing has to be searched for.

    In hexadecimal: mail programs take a link to end before some other characters.
    """
    secret = secrets.token_bytes(_SECRET_BYTES)
    return NewToken(f"{mail_id.hex}{secret.hex()}", hashlib.sha256(secret).digest())


async def find_link(session: AsyncSession, kind: MailKind, token: str) -> MailRow | None:
    """Return the mail that was sent with this token, if the token has not expired.

    It may have been used.
    """
    read = _TOKEN.fullmatch(token)
    if read is None:
        return None
    row = await session.get(MailRow, UUID(read["mail_id"]), populate_existing=True)
    if row is None or row.kind != kind or row.expires_at <= utc_now():
        return None
    given = hashlib.sha256(bytes.fromhex(read["secret"])).digest()
    is_right = any(hmac.compare_digest(given, stored) for stored in row.token_hashes)
    return row if is_right else None
