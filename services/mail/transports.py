"""How a mail leaves: by SMTP, or into the log of `everturn dev`.

MailRefusedError      the server refuses the mail for good
MailPostponedError    it was not taken now; trying again later may help
"""

import asyncio
from contextlib import suppress
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from ssl import SSLContext
from typing import Final, Literal, Protocol

import aiosmtplib
import structlog

_log = structlog.get_logger(__name__)

_GOODBYE_S: Final = 2.0
_WHOLE_S: Final = 60.0
"""From connecting to the answer, however lively the server is."""

Encryption = Literal["starttls", "tls", "none"]


class MailRefusedError(Exception):
    """The server refuses the mail for good; `problem` is its reply code."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"The mail server refused the mail ({problem}).")
        self.problem = problem


class MailPostponedError(Exception):
    """The mail was not taken. Replies of servers quote addresses: `problem` is a code or a word.

    `may_have_left` if the server got all of it, and its answer was lost.
    """

    def __init__(self, problem: str, *, may_have_left: bool = False) -> None:
        super().__init__(f"The mail was not taken ({problem}).")
        self.problem = problem
        self.may_have_left = may_have_left


class Transport(Protocol):
    """Takes a mail to its recipient, or at least to who does."""

    async def deliver(self, message: EmailMessage, *, sender: str, to: str) -> None:
        """Hand the mail over. Errors: MailRefusedError, MailPostponedError."""


class SmtpTransport:
    """Sends by a server of mail, over a connection for each.

    A refusal of what is set up, e.g. the password, is not final: an operator may correct it.
    Source: RFC 5321, section 4.2.1, for what replies mean.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        encryption: Encryption,
        username: str | None,
        password: str | None,
        timeout_s: float,
        tls: SSLContext | None = None,
    ) -> None:
        self._host, self._port = host, port
        self._encryption = encryption
        self._username, self._password = username, password
        self._timeout_s = timeout_s
        self._tls = tls

    async def deliver(self, message: EmailMessage, *, sender: str, to: str) -> None:
        """Hand the mail over. Errors: MailRefusedError, MailPostponedError."""
        server = aiosmtplib.SMTP(
            hostname=self._host,
            port=self._port,
            username=self._username,
            password=self._password,
            timeout=self._timeout_s,
            use_tls=self._encryption == "tls",
            start_tls=self._encryption == "starttls",
            tls_context=self._tls,
        )
        has_data = False
        try:
            async with asyncio.timeout(_WHOLE_S):
                await server.connect()
                await server.mail(sender)
                await server.rcpt(to)
                has_data = True
                await server.data(message.as_bytes(policy=SMTP_POLICY))
        except aiosmtplib.SMTPResponseException as error:
            raise _failure_of(error) from None
        except (aiosmtplib.SMTPException, OSError) as error:
            raise MailPostponedError(_name_of(error), may_have_left=has_data) from None
        else:
            with suppress(aiosmtplib.SMTPException, OSError):
                await server.quit(timeout=_GOODBYE_S)
        finally:
            server.close()


_ABOUT_THE_MAIL: Final = (
    aiosmtplib.SMTPSenderRefused,
    aiosmtplib.SMTPRecipientRefused,
    aiosmtplib.SMTPDataError,
)


def _failure_of(
    error: aiosmtplib.SMTPResponseException,
) -> MailRefusedError | MailPostponedError:
    if (
        isinstance(error, _ABOUT_THE_MAIL)
        and 500 <= error.code <= 599
        and not _asks_for_more(error)
    ):
        return MailRefusedError(str(error.code))
    return MailPostponedError(str(error.code))


def _asks_for_more(error: aiosmtplib.SMTPResponseException) -> bool:
    """Whether the server wants a password or TLS first. Source: RFC 4954, RFC 3207."""
    return error.code in {530, 534, 535, 538}


def _name_of(error: Exception) -> str:
    """Return why a server could not be spoken with; of a failed connection, why it failed."""
    if isinstance(error, TimeoutError):
        return "timeout"
    return type(error.__cause__ or error).__name__[:100]


class LogTransport:
    """Shows mails in the log, for development: who reads it can use their links."""

    async def deliver(self, message: EmailMessage, *, sender: str, to: str) -> None:
        """Log the mail."""
        text = " ".join(message.get_content().split())
        _log.info("mail", sender=sender, to=to, subject=message["Subject"], text=text)
