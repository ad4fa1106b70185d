"""Mails to users: their kinds, and what the workflow `SendMail` carries of one."""

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Final

from schema.ids import MailId, UserId
from schema.wire import Payload


class MailKind(StrEnum):
    """What a mail is about; the first two have a link with a token."""

    PASSWORD_RESET = "password_reset"  # noqa: S105 -- a kind of mail
    EMAIL_VERIFICATION = "email_verification"
    PASSWORD_CHANGED = "password_changed"  # noqa: S105 -- as above
    EMAIL_CHANGE = "email_change"


MAIL_LIFETIMES: Final[Mapping[MailKind, timedelta]] = {
    MailKind.PASSWORD_RESET: timedelta(hours=1),
    MailKind.EMAIL_VERIFICATION: timedelta(hours=24),
    MailKind.PASSWORD_CHANGED: timedelta(hours=24),
    MailKind.EMAIL_CHANGE: timedelta(hours=24),
}
"""How long a mail is tried to be sent, and its link is valid; both from when it was asked for."""


class MailStatus(StrEnum):
    """Where a mail is; `refused` by the server, or answered by it never."""

    PENDING = "pending"
    SENT = "sent"
    REFUSED = "refused"
    EXPIRED = "expired"


class MailReference(Payload):
    """A mail; its address and text stay in the database."""

    mail_id: MailId
    user_id: UserId
    kind: MailKind


class MailOutcome(Payload):
    """How a mail ended; without a status it was deleted with its user.

    `problem` is a reply code of SMTP, or a word of ours.
    """

    status: MailStatus | None = None
    problem: str | None = None
