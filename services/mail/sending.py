"""Sending a mail: a claim, a token, the text, the server.

An attempt stores the hash of its token before it sends anything, and takes it back if nothing
left. What may have left counts: after five such attempts the mail is not sent once more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from typing import Final, NoReturn
from urllib.parse import urlsplit

import asyncpg
import structlog
from prometheus_client import Counter

from schema.actors import SERVICE
from schema.ids import MailId, UserId
from schema.mail import MailKind, MailOutcome, MailReference, MailStatus
from schema.tables.columns import utc_now
from services.database import Database
from services.mail.outbox import new_token
from services.mail.texts import mail_text
from services.mail.transports import MailPostponedError, MailRefusedError, Transport

_log = structlog.get_logger(__name__)

MOST_COPIES: Final = 5
"""Of a mail whose server takes it all and does not answer: it may deliver each."""
_AT_ONCE: Final = 100

_MAILS: Final = Counter(
    "everturn_mails",
    "Attempts to send a mail: sent, postponed, refused by the server, or given up as expired.",
    ("outcome",),
)
for _outcome in ("sent", "postponed", "refused", "expired"):
    _MAILS.labels(_outcome)

_FORGET_OLD: Final = """
DELETE FROM mails WHERE id IN (
    SELECT id FROM mails WHERE expires_at < now() - interval '1 day' LIMIT 100
)
"""
_CLAIM: Final = """
UPDATE mails SET attempts = attempts + 1, token_hashes = CASE
    WHEN expires_at > now() AND cardinality(token_hashes) < $3
    THEN array_append(token_hashes, $2::bytea) ELSE token_hashes END
WHERE id = $1 AND status = 'pending'
  AND EXISTS (SELECT FROM users WHERE users.id = mails.user_id AND users.status = 'active')
RETURNING kind, address, expires_at > now() AS is_current,
    $2::bytea = ANY(token_hashes) AS is_claimed,
    (SELECT language FROM preferences WHERE preferences.user_id = mails.user_id) AS language
"""
_READ: Final = "SELECT status, problem FROM mails WHERE id = $1"
_FINISH: Final = """
UPDATE mails SET status = $2, problem = $3, finished_at = now()
WHERE id = $1 AND status = 'pending'
"""
_POSTPONE: Final = """
UPDATE mails SET problem = $3, token_hashes = array_remove(token_hashes, $2::bytea) WHERE id = $1
"""
_UNSTARTED: Final = """
SELECT id, user_id, kind FROM mails
WHERE status = 'pending' AND attempts = 0 AND expires_at > now()
  AND created_at < now() - interval '5 seconds'
ORDER BY created_at LIMIT $1
"""

_PATHS: Final[Mapping[MailKind, str]] = {
    MailKind.PASSWORD_RESET: "/reset-password#token={}",
    MailKind.EMAIL_VERIFICATION: "/verify-email#token={}",
    MailKind.PASSWORD_CHANGED: "/reset-password",
    MailKind.EMAIL_CHANGE: "/reset-password",
}
"""Paths of the front end. A token is behind the `#`, which browsers send to no server: neither a
log nor the page that a link leads on to gets it."""


@dataclass(frozen=True, slots=True)
class Letterhead:
    """Whom mails are from, `Name <address>`, and the front end's URL, without a slash."""

    sender: str
    front_end: str

    @property
    def address(self) -> str:
        """The sender's address alone."""
        return parseaddr(self.sender)[1]

    def compose(
        self, kind: MailKind, *, mail_id: MailId, to: str, token: str, language: str | None
    ) -> EmailMessage:
        """Return the mail. All copies of it have one `Message-ID`, by which they can be told.

        Source: RFC 3834, section 5, for what keeps robots from answering.
        """
        text = mail_text(kind, language=language)
        site = urlsplit(self.front_end).netloc
        message = EmailMessage()
        name, address = parseaddr(self.sender)
        message["From"] = Address(name, addr_spec=address)
        message["To"] = Address(addr_spec=to)
        message["Subject"] = text.subject.format(site=site)
        message["Date"] = format_datetime(utc_now())
        message["Message-ID"] = f"<{mail_id}@{address.rpartition('@')[2]}>"
        message["Auto-Submitted"] = "auto-generated"
        link = f"{self.front_end}{_PATHS[kind].format(token)}"
        # Not every server takes more than ASCII.
        message.set_content(text.body.format(site=site, link=link), cte="quoted-printable")
        return message


class MailSending:
    """Sends mails; without a transport they wait. Errors: DatabaseUnavailableError."""

    def __init__(
        self, database: Database, transport: Transport | None, letterhead: Letterhead
    ) -> None:
        self._database = database
        self._transport = transport
        self._letterhead = letterhead

    async def unstarted(self) -> list[MailReference]:
        """Return mails that no workflow has tried to send, the oldest first."""
        async with self._database.statements(SERVICE) as connection:
            rows = await connection.fetch(_UNSTARTED, _AT_ONCE)
        return [
            MailReference(
                mail_id=MailId(row["id"]), user_id=UserId(row["user_id"]), kind=row["kind"]
            )
            for row in rows
        ]

    async def send(self, mail_id: MailId) -> MailOutcome:
        """Try once to send a mail.

        Errors: MailPostponedError.
        Idempotency: a mail that was sent is not sent again. One whose attempt died may be: its copy
        has another link, and both are valid until one is used.
        """
        if self._transport is None:
            _MAILS.labels("postponed").inc()
            raise MailPostponedError("not set up")
        token, token_hash = new_token(mail_id)
        async with self._database.statements(SERVICE) as connection:
            await connection.execute(_FORGET_OLD)
            claimed = await connection.fetchrow(_CLAIM, mail_id, token_hash, MOST_COPIES)
            if claimed is None:
                return _outcome_of(await connection.fetchrow(_READ, mail_id))
        if not claimed["is_claimed"]:
            problem = "no answer" if claimed["is_current"] else None
            return await self._finish(mail_id, MailStatus.EXPIRED, problem)
        sender, to = self._letterhead.address, claimed["address"]
        if not to.isascii():
            # Accounts of early versions have such addresses; hardly any server takes them.
            return await self._finish(mail_id, MailStatus.REFUSED, "address")
        message = self._letterhead.compose(
            MailKind(claimed["kind"]),
            mail_id=mail_id,
            to=to,
            token=token,
            language=claimed["language"],
        )
        try:
            await self._transport.deliver(message, sender=sender, to=to)
        except MailRefusedError as error:
            return await self._finish(mail_id, MailStatus.REFUSED, error.problem)
        except MailPostponedError as error:
            await self._postpone(mail_id, token_hash, error)
        return await self._finish(mail_id, MailStatus.SENT, None)

    async def _finish(
        self, mail_id: MailId, status: MailStatus, problem: str | None
    ) -> MailOutcome:
        async with self._database.statements(SERVICE) as connection:
            await connection.execute(_FINISH, mail_id, status.value, problem)
        _MAILS.labels(status.value).inc()
        log = _log.info if status is MailStatus.SENT else _log.warning
        log("mail_finished", mail=str(mail_id), status=status.value, problem=problem)
        return MailOutcome(status=status, problem=problem)

    async def _postpone(
        self, mail_id: MailId, token_hash: bytes, error: MailPostponedError
    ) -> NoReturn:
        unused = None if error.may_have_left else token_hash
        async with self._database.statements(SERVICE) as connection:
            await connection.execute(_POSTPONE, mail_id, unused, error.problem)
        _MAILS.labels("postponed").inc()
        raise error


def _outcome_of(row: asyncpg.Record | None) -> MailOutcome:
    """Return how a mail ended before, or why it is not to be sent."""
    if row is None or row["status"] == MailStatus.PENDING:
        return MailOutcome()
    return MailOutcome(status=MailStatus(row["status"]), problem=row["problem"])
