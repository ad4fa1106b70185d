"""A server of mail that takes what it is sent, or does not, by recipient."""

import asyncio
import ssl
import warnings
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from enum import Enum, auto
from typing import Final, cast

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword
from aiosmtpd.smtp import Session as SmtpSession

USERNAME: Final = "mailer"
PASSWORD: Final = "hunter2 hunter2"
_WITHIN_S: Final = 15.0


class Fault(Enum):
    """What happens to a mail instead of being taken."""

    DROPPED = auto()
    """Taken, and the connection is closed without an answer."""
    HANGS = auto()
    """Taken, and never answered."""


class MailServer:
    """What arrived, and what is to happen to the next mails of a recipient.

    A script is a list of replies: to RCPT if they begin with a digit, to DATA behind `data `.
    """

    def __init__(self) -> None:
        self.port = 0
        self.envelopes: list[Envelope] = []
        self.scripts: defaultdict[str, list[str | Fault]] = defaultdict(list)
        self._arrived = asyncio.Condition()

    async def mails_to(self, address: str, *, at_least: int = 1) -> list[EmailMessage]:
        """Return the mails to an address, once there are so many."""

        def found() -> list[EmailMessage]:
            return [
                message_from_bytes(envelope.content, policy=default)
                for envelope in self.envelopes
                if envelope.rcpt_tos == [address] and isinstance(envelope.content, bytes)
            ]

        async with asyncio.timeout(_WITHIN_S), self._arrived:
            await self._arrived.wait_for(lambda: len(found()) >= at_least)
            return found()

    async def handle_RCPT(  # noqa: N802, PLR0917 -- as aiosmtpd calls it
        self,
        server: SMTP,
        session: SmtpSession,
        envelope: Envelope,
        address: str,
        rcpt_options: list[str],
    ) -> str:
        """Take a recipient, or reply as scripted."""
        script = self.scripts[address]
        if script and isinstance(script[0], str) and script[0][0].isdigit():
            reply = script.pop(0)
            assert isinstance(reply, str)
            return reply
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: SmtpSession, envelope: Envelope) -> str:  # noqa: N802 -- as above
        """Keep a mail, or do as scripted."""
        script = self.scripts[envelope.rcpt_tos[0]]
        event = script.pop(0) if script else None
        if isinstance(event, str):
            return event.removeprefix("data ")
        async with self._arrived:
            self.envelopes.append(envelope)
            self._arrived.notify_all()
        if event is Fault.HANGS:
            await asyncio.Event().wait()
        if event is Fault.DROPPED:
            cast("asyncio.Transport", server.transport).abort()
        return "250 OK"


@asynccontextmanager
async def mail_server(
    *, tls: ssl.SSLContext | None = None, starttls: bool = False, auth: bool = False
) -> AsyncIterator[MailServer]:
    """Serve on loopback; `tls` from the first byte, or after STARTTLS."""
    fake = MailServer()
    connections: set[SMTP] = set()

    def connected() -> SMTP:
        with warnings.catch_warnings():
            # It doesn't know of TLS from the first byte.
            warnings.simplefilter("ignore")
            server = SMTP(
                fake,
                hostname="mail.example",
                tls_context=tls if starttls else None,
                require_starttls=starttls,
                auth_required=auth,
                auth_require_tls=False,
                authenticator=_authenticate if auth else None,
                loop=asyncio.get_running_loop(),
            )
        connections.add(server)
        return server

    listener = await asyncio.get_running_loop().create_server(
        connected, "127.0.0.1", 0, ssl=None if starttls else tls
    )
    fake.port = listener.sockets[0].getsockname()[1]
    try:
        yield fake
    finally:
        listener.close()
        for server in connections:
            if server.transport is not None:
                server.transport.close()
            if server._handler_coroutine is not None:
                server._handler_coroutine.cancel()
        await listener.wait_closed()


def _authenticate(  # noqa: PLR0917 -- as aiosmtpd calls it
    server: SMTP, session: SmtpSession, envelope: Envelope, mechanism: str, data: object
) -> AuthResult:
    right = LoginPassword(USERNAME.encode(), PASSWORD.encode())
    return AuthResult(success=data == right, handled=False)
