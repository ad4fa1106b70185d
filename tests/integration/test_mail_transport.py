"""SMTP as servers speak it: taken, refused, put off, dropped, silent; by TLS, with a password."""

import asyncio
import ssl
from email.message import EmailMessage
from typing import Any

import pytest
from structlog.testing import capture_logs

from services.mail.transports import (
    Encryption,
    LogTransport,
    MailPostponedError,
    MailRefusedError,
    SmtpTransport,
)
from tests.fakes.mail_server import PASSWORD, USERNAME, Fault, MailServer, mail_server
from tests.fixtures.tls import Authority

ADA = "ada@example.com"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("mail"), "mail")


def letter() -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = "Grüße"
    message.set_content("Hallo.\n.\nZeile nach einem Punkt.\n", cte="quoted-printable")
    return message


async def deliver(server: MailServer, **settings: Any) -> None:  # noqa: ANN401 -- any settings
    given: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": server.port,
        "encryption": "none",
        "username": None,
        "password": None,
        "timeout_s": 5,
        **settings,
    }
    await SmtpTransport(**given).deliver(letter(), sender="no-reply@example.com", to=ADA)


async def test_a_mail_arrives_as_it_was_written() -> None:
    async with mail_server() as server:
        await deliver(server)

    (envelope,) = server.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos) == ("no-reply@example.com", [ADA])
    (mail,) = await server.mails_to(ADA)
    assert mail["Subject"] == "Grüße"
    assert mail.get_content().replace("\r\n", "\n") == letter().get_content()


@pytest.mark.parametrize("reply", ["550 No such user", "data 554 Spam", "501 Bad"])
async def test_a_refusal_is_final(reply: str) -> None:
    async with mail_server() as server:
        server.scripts[ADA].append(reply)
        with pytest.raises(MailRefusedError) as refused:
            await deliver(server)

    assert refused.value.problem == reply.removeprefix("data ")[:3]
    assert ADA not in str(refused.value)


@pytest.mark.parametrize(
    ("event", "problem", "may_have_left"),
    [
        ("450 Greylisted, try again", "450", False),
        ("530 Authentication required", "530", False),
        ("data 451 Try again", "451", False),
        (Fault.DROPPED, "SMTPServerDisconnected", True),
        (Fault.HANGS, "timeout", True),
    ],
)
async def test_what_passes_is_put_off(
    event: str | Fault, problem: str, *, may_have_left: bool
) -> None:
    async with mail_server() as server:
        server.scripts[ADA].append(event)
        with pytest.raises(MailPostponedError) as postponed:
            await deliver(server, timeout_s=0.3)

    assert (postponed.value.problem, postponed.value.may_have_left) == (problem, may_have_left)


async def test_a_server_that_is_not_there_is_waited_for() -> None:
    async with mail_server() as server:
        pass

    with pytest.raises(MailPostponedError) as postponed:
        await deliver(server)

    assert not postponed.value.may_have_left


async def test_a_server_that_says_nothing_is_waited_for_no_longer_than_set() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with silent:
        with pytest.raises(MailPostponedError, match="timeout"):
            await deliver(MailServer(), port=silent.sockets[0].getsockname()[1], timeout_s=0.3)


@pytest.mark.parametrize("encryption", ["tls", "starttls"])
async def test_mail_is_sent_by_tls_with_a_password(
    authority: Authority, encryption: Encryption
) -> None:
    server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_tls.load_cert_chain(*authority.server)
    trusted = ssl.create_default_context(cafile=authority.certificate)
    account = {"username": USERNAME, "password": PASSWORD}
    async with mail_server(tls=server_tls, starttls=encryption == "starttls", auth=True) as server:
        await deliver(server, encryption=encryption, tls=trusted, **account)
        with pytest.raises(MailPostponedError, match="535"):
            await deliver(
                server, encryption=encryption, tls=trusted, username=USERNAME, password="wrong"
            )
        with pytest.raises(MailPostponedError, match="SSLCertVerificationError"):
            await deliver(server, encryption=encryption, **account)

    assert len(server.envelopes) == 1


async def test_nothing_is_sent_in_the_clear_to_a_server_without_starttls() -> None:
    async with mail_server() as server:
        with pytest.raises(MailPostponedError):
            await deliver(server, encryption="starttls")

    assert server.envelopes == []


async def test_in_development_a_mail_is_shown_in_one_line_of_the_log() -> None:
    with capture_logs() as logs:
        await LogTransport().deliver(letter(), sender="no-reply@example.com", to=ADA)

    (line,) = logs
    assert (line["event"], line["to"], line["subject"]) == ("mail", ADA, "Grüße")
    assert line["text"] == "Hallo. . Zeile nach einem Punkt."
