"""How mails to users are sent: put off, refused, copied, lost, and never in a history or a log."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs
from temporalio.client import WorkflowExecutionStatus

from schema.ids import MailId, mail_workflow_id
from schema.mail import MailStatus
from services.mail.sending import MOST_COPIES
from tests.fakes.mail_server import Fault, MailServer
from tests.fixtures.api_user import PASSWORD, ApiUser
from tests.fixtures.stack import Stack
from tests.integration.test_account_mail import (
    NEW_PASSWORD,
    VERIFICATION,
    mail_rows,
    mails_about,
    reset,
    reset_token,
    token_in,
    verify,
)
from tests.running_everturn.waiting import eventually


@pytest.fixture
async def member(mailing: Stack) -> ApiUser:
    return await mailing.sign_up()


async def test_nothing_secret_is_in_the_history_or_the_log(
    mailing: Stack, mail_box: MailServer, member: ApiUser
) -> None:
    with capture_logs() as logs:
        token = await reset_token(mailing, mail_box, member)
        await reset(mailing, token)
        await mails_about(mail_box, member.email, "was changed")
    (row,) = await mail_rows(mailing, member, "password_reset")
    handle = mailing.temporal.get_workflow_handle(mail_workflow_id(MailId(row["id"])))
    history = (await handle.fetch_history()).to_json()

    for secret in (token, member.email, NEW_PASSWORD, "app.example.com"):
        assert secret not in history
        assert secret not in str(logs)
    stored = str(await mail_rows(mailing, member, "password_reset"))
    assert token not in stored


async def test_a_mail_that_is_put_off_arrives_later(mailing: Stack, mail_box: MailServer) -> None:
    email = f"{uuid4().hex}@example.com"
    mail_box.scripts[email] += ["450 Greylisted"]

    body = {"email": email, "password": PASSWORD}
    signed_up = await mailing.http.post("/auth/signup", json=body)

    (mail,) = await mails_about(mail_box, email, "Confirm")
    assert (await verify(mailing, token_in(mail, VERIFICATION))).status_code == 204
    person = ApiUser(mailing.http, signed_up.json()["data"], email=email)
    (row,) = await mail_rows(mailing, person, "email_verification")
    assert (row["attempts"], len(row["token_hashes"]), row["status"]) == (2, 1, "sent")


async def test_each_copy_of_a_mail_has_a_link_that_works(
    mailing: Stack, mail_box: MailServer
) -> None:
    """The server took the first one, and its answer was lost: both may be delivered."""
    email = f"{uuid4().hex}@example.com"
    mail_box.scripts[email] += [Fault.DROPPED]
    await mailing.http.post("/auth/signup", json={"email": email, "password": PASSWORD})

    first, second = await mail_box.mails_to(email, at_least=2)

    assert first["Message-ID"] == second["Message-ID"]
    tokens = [token_in(mail, VERIFICATION) for mail in (first, second)]
    assert tokens[0] != tokens[1]
    assert [(await verify(mailing, token)).status_code for token in tokens] == [204, 204]


async def test_a_refused_mail_is_not_tried_again(mailing: Stack, mail_box: MailServer) -> None:
    email = f"{uuid4().hex}@example.com"
    mail_box.scripts[email] += ["550 No such user"]

    body = {"email": email, "password": PASSWORD}
    session = (await mailing.http.post("/auth/signup", json=body)).json()["data"]
    person = ApiUser(mailing.http, session, email=email)
    (row,) = await eventually(
        lambda: mail_rows(mailing, person, "email_verification"),
        lambda rows: rows[0]["status"] != "pending",
    )

    assert (row["status"], row["problem"], row["attempts"]) == ("refused", "550", 1)
    handle = mailing.temporal.get_workflow_handle(mail_workflow_id(MailId(row["id"])))
    assert (await handle.result())["status"] == "refused"
    assert (await handle.describe()).status is WorkflowExecutionStatus.COMPLETED


async def new_mail(mailing: Stack, person: ApiUser, **columns: object) -> MailId:
    """Store a mail whose workflow is not started."""
    given = {"token_hashes": [], "expires_in": timedelta(hours=1), **columns}
    return MailId(
        await mailing.inspection.value(
            "INSERT INTO mails (id, user_id, kind, address, token_hashes, expires_at, attempts) "
            "VALUES (gen_random_uuid(), $1, 'email_verification', $2, $3, now() + $4, 1) "
            "RETURNING id",
            UUID(person.id),
            person.email,
            given["token_hashes"],
            given["expires_in"],
        )
    )


async def test_a_mail_ends_whatever_the_server_does(mailing: Stack, member: ApiUser) -> None:
    sending = mailing.activities.mail._sending
    old = await new_mail(mailing, member, expires_in=timedelta(seconds=-1))
    copied = await new_mail(
        mailing, member, token_hashes=[bytes([n]) * 32 for n in range(MOST_COPIES)]
    )
    unknown = MailId(uuid4())
    early = await new_mail(mailing, member)
    await mailing.inspection.execute(
        "UPDATE mails SET address = 'josé@example.com' WHERE id = $1", early
    )

    assert (await sending.send(early)).status is MailStatus.REFUSED
    assert (await sending.send(old)).status is MailStatus.EXPIRED
    outcome = await sending.send(copied)
    assert (outcome.status, outcome.problem) == (MailStatus.EXPIRED, "no answer")
    assert (await sending.send(unknown)).status is None
    # What has ended is not tried again.
    assert (await sending.send(old)).status is MailStatus.EXPIRED


async def test_a_mail_whose_workflow_never_started_is_found(
    mailing: Stack, mail_box: MailServer, member: ApiUser
) -> None:
    mail_id = await new_mail(mailing, member)
    await mailing.inspection.execute(
        "UPDATE mails SET attempts = 0, created_at = now() - interval '1 minute' WHERE id = $1",
        mail_id,
    )

    found = await mailing.activities.mail.unstarted()

    assert mail_id in {mail.mail_id for mail in found}
