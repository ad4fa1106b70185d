"""Password reset and email verification, with a server of mail: what is sent, and what links do."""

import re
from email.message import EmailMessage
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from tests.fakes.mail_server import MailServer
from tests.fakes.scripted_model.scripts import Script
from tests.fixtures.api_user import PASSWORD, ApiUser, unique
from tests.fixtures.stack import Stack
from tests.running_everturn.waiting import eventually

NEW_PASSWORD = "another horse, another battery"
RESET = "https://app.example.com/reset-password#token="
VERIFICATION = "https://app.example.com/verify-email#token="


@pytest.fixture
async def member(mailing: Stack) -> ApiUser:
    return await mailing.sign_up()


def token_in(mail: EmailMessage, link: str) -> str:
    found = re.search(re.escape(link) + r"(\S+)", mail.get_content())
    assert found is not None, mail.get_content()
    return found[1]


async def ask_reset(mailing: Stack, email: str) -> httpx.Response:
    return await mailing.http.post("/auth/password-reset", json={"email": email})


async def reset(
    mailing: Stack,
    token: str,
    password: str = NEW_PASSWORD,
    **body: Any,  # noqa: ANN401 -- any JSON
) -> httpx.Response:
    sent = {"token": token, "password": password, **body}
    return await mailing.http.post("/auth/password-reset/confirm", json=sent)


async def verify(mailing: Stack, token: str) -> httpx.Response:
    return await mailing.http.post("/auth/email-verification/confirm", json={"token": token})


async def log_in(mailing: Stack, email: str, password: str) -> httpx.Response:
    return await mailing.http.post("/auth/login", json={"email": email, "password": password})


async def mails_about(
    box: MailServer, address: str, subject: str, *, at_least: int = 1
) -> list[EmailMessage]:
    """Return the mails with this subject, once there are so many."""

    async def found() -> list[EmailMessage]:
        return [mail for mail in await box.mails_to(address) if subject in mail["Subject"]]

    return await eventually(found, lambda mails: len(mails) >= at_least)


async def reset_token(mailing: Stack, box: MailServer, person: ApiUser) -> str:
    """Ask for a reset, and return the token of its mail."""
    before = len([m for m in await box.mails_to(person.email) if "Reset" in m["Subject"]])
    assert (await ask_reset(mailing, person.email)).status_code == 202
    mails = await mails_about(box, person.email, "Reset", at_least=before + 1)
    return token_in(mails[-1], RESET)


async def mail_rows(mailing: Stack, person: ApiUser, kind: str) -> list[dict[str, Any]]:
    query = "SELECT * FROM mails WHERE user_id = $1 AND kind = $2 ORDER BY id"
    return [dict(row) for row in await mailing.inspection.rows(query, UUID(person.id), kind)]


def refused_token(response: httpx.Response) -> bool:
    error = response.json()["error"]
    return (response.status_code, error["details"][0]["path"]) == (400, "body.token")


async def test_a_forgotten_password_is_replaced(
    mailing: Stack, mail_box: MailServer, member: ApiUser
) -> None:
    other = (await log_in(mailing, member.email, PASSWORD)).json()["data"]

    response = await ask_reset(mailing, member.email.upper())
    assert response.status_code == 202
    assert response.json()["data"] == {"email": member.email.upper(), "expiresIn": 3600}
    (mail,) = await mails_about(mail_box, member.email, "Reset")
    done = await reset(mailing, token_in(mail, RESET))

    assert (done.status_code, done.content) == (204, b"")
    assert (await log_in(mailing, member.email, PASSWORD)).status_code == 401
    assert (await log_in(mailing, member.email, NEW_PASSWORD)).status_code == 200
    for session in (member.session, other):
        headers = {"Authorization": f"Bearer {session['accessToken']}"}
        assert (await mailing.http.get("/users/me", headers=headers)).status_code == 401
        refreshed = await mailing.http.post(
            "/auth/refresh", json={"refreshToken": session["refreshToken"]}
        )
        assert refreshed.status_code == 401
    (notice,) = await mails_about(mail_box, member.email, "was changed")
    assert "token=" not in notice.get_content()


async def test_the_mail_says_whom_it_is_from_in_plain_text(
    mailing: Stack, mail_box: MailServer, member: ApiUser
) -> None:
    await ask_reset(mailing, member.email)

    (mail,) = await mails_about(mail_box, member.email, "Reset")

    assert mail["Subject"] == "Reset your password for app.example.com"
    assert mail["From"] == "Everturn Prüfstand <no-reply@example.com>"
    assert (mail["To"], mail["Auto-Submitted"]) == (member.email, "auto-generated")
    assert mail.get_content_type() == "text/plain"
    (row,) = await mail_rows(mailing, member, "password_reset")
    assert mail["Message-ID"] == f"<{row['id']}@example.com>"


async def test_a_link_works_once_and_not_with_another_password(
    mailing: Stack, mail_box: MailServer, member: ApiUser
) -> None:
    token = await reset_token(mailing, mail_box, member)
    another = await reset_token(mailing, mail_box, member)
    assert (await reset(mailing, token)).status_code == 204

    # A client whose answer was lost repeats its request.
    assert (await reset(mailing, token)).status_code == 204
    assert refused_token(await reset(mailing, token, "a third horse, a third battery"))
    # The other link was for the password before.
    assert refused_token(await reset(mailing, another))
    assert (await log_in(mailing, member.email, NEW_PASSWORD)).status_code == 200


async def test_a_link_is_for_the_password_as_it_was(
    mailing: Stack, mail_box: MailServer, member: ApiUser
) -> None:
    token = await reset_token(mailing, mail_box, member)
    body = {"currentPassword": PASSWORD, "newPassword": NEW_PASSWORD}
    assert (await member.request("PATCH", "/users/me", json=body)).status_code == 200

    assert refused_token(await reset(mailing, token))
    assert (await log_in(mailing, member.email, NEW_PASSWORD)).status_code == 200
    await mails_about(mail_box, member.email, "was changed")


async def test_a_link_expires(mailing: Stack, mail_box: MailServer, member: ApiUser) -> None:
    token = await reset_token(mailing, mail_box, member)
    await mailing.inspection.execute(
        "UPDATE mails SET expires_at = now() WHERE user_id = $1", UUID(member.id)
    )

    assert refused_token(await reset(mailing, token))


@pytest.mark.parametrize(
    "token", ["x", "=", "é", "\U0001f511", "a" * 96, "0" * 95, "g" * 96, "a" * 200, "../..", "%00"]
)
async def test_other_tokens_are_refused(mailing: Stack, token: str) -> None:
    assert refused_token(await reset(mailing, token))
    assert refused_token(await verify(mailing, token))


async def test_a_token_is_of_its_kind(
    mailing: Stack, mail_box: MailServer, member: ApiUser
) -> None:
    (mail,) = await mails_about(mail_box, member.email, "Confirm")

    assert refused_token(await reset(mailing, token_in(mail, VERIFICATION)))


async def test_api_keys_go_where_asked_for(
    mailing: Stack, mail_box: MailServer, member: ApiUser
) -> None:
    key = (await member.request("POST", "/users/me/api-keys", json={"name": "k"})).json()["data"]
    headers = {"Authorization": f"Bearer {key['key']}"}

    assert (await reset(mailing, await reset_token(mailing, mail_box, member))).status_code == 204
    assert (await mailing.http.get("/users/me", headers=headers)).status_code == 200
    token = await reset_token(mailing, mail_box, member)
    assert (await reset(mailing, token, PASSWORD, revokeApiKeys=True)).status_code == 204

    assert (await mailing.http.get("/users/me", headers=headers)).status_code == 401


async def test_a_reset_reveals_no_account(
    mailing: Stack, mail_box: MailServer, member: ApiUser
) -> None:
    disabled = await mailing.sign_up()
    await mailing.inspection.execute(
        "UPDATE users SET status = 'disabled' WHERE id = $1", UUID(disabled.id)
    )
    outside = await mailing.sign_up()
    await mailing.inspection.execute("DELETE FROM credentials WHERE user_id = $1", UUID(outside.id))
    unknown = f"{uuid4().hex}@example.com"
    people = (member.email, unknown, disabled.email, outside.email)
    # The answer comes while the account can't be locked: what is done for a known one is behind it.
    async with mailing.inspection.locked("users", UUID(member.id)):
        for _ in range(7):
            for email in people:
                response = await ask_reset(mailing, email)
                assert response.status_code == 202
                assert response.json()["data"] == {"email": email, "expiresIn": 3600}

    for stranger in (disabled, outside):
        assert await mail_rows(mailing, stranger, "password_reset") == []
    # No mailbox is filled by others.
    await mails_about(mail_box, member.email, "Reset", at_least=5)
    assert len(await mail_rows(mailing, member, "password_reset")) == 5


async def test_a_user_chats_once_the_address_is_verified(
    mailing: Stack, mail_box: MailServer, member: ApiUser
) -> None:
    chat = await member.create_chat()
    refused = await member.post(chat, "Hello")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "EMAIL_NOT_VERIFIED")
    assert await member.messages(chat) == []
    assert not member.session["user"]["emailVerified"]

    (mail,) = await mails_about(mail_box, member.email, "Confirm")
    token = token_in(mail, VERIFICATION)
    assert (await verify(mailing, token)).status_code == 204
    assert (await verify(mailing, token)).status_code == 204

    me = (await member.request("GET", "/auth/me")).json()["data"]
    assert me["emailVerified"]
    question = unique()
    mailing.model.add(Script(match=question, text="Hi."))
    assert (await member.ask(chat, question))["assistantMessage"]["content"] == "Hi."


async def test_a_link_is_sent_again_until_it_was_used(
    mailing: Stack, mail_box: MailServer, member: ApiUser
) -> None:
    again = await member.request("POST", "/auth/email-verification")
    assert again.status_code == 202
    assert again.json()["data"] == {"email": member.email, "expiresIn": 86400}
    first, second = await mails_about(mail_box, member.email, "Confirm", at_least=2)
    assert (await verify(mailing, token_in(second, VERIFICATION))).status_code == 204
    assert (await verify(mailing, token_in(first, VERIFICATION))).status_code == 204

    late = await member.request("POST", "/auth/email-verification")
    assert (late.status_code, late.json()["error"]["code"]) == (409, "CONFLICT")


async def test_a_new_address_counts_once_it_is_verified(
    mailing: Stack, mail_box: MailServer, member: ApiUser
) -> None:
    new = f"new-{uuid4().hex}@example.com"
    token = await reset_token(mailing, mail_box, member)
    body = {"email": new, "currentPassword": PASSWORD}
    changed = (await member.request("PATCH", "/users/me", json=body)).json()["data"]
    assert (changed["email"], changed["pendingEmail"]) == (member.email, new)
    assert (await log_in(mailing, new, PASSWORD)).status_code == 401
    assert (await log_in(mailing, member.email, PASSWORD)).status_code == 200
    await mails_about(mail_box, member.email, "is being changed")
    (mail,) = await mails_about(mail_box, new, "Confirm")

    assert (await verify(mailing, token_in(mail, VERIFICATION))).status_code == 204

    me = (await member.request("GET", "/users/me")).json()["data"]
    assert (me["email"], me["pendingEmail"], me["emailVerified"]) == (new, None, True)
    assert (await log_in(mailing, new, PASSWORD)).status_code == 200
    assert (await log_in(mailing, member.email, PASSWORD)).status_code == 401
    # A link that is in the old mailbox is worth nothing any more.
    assert refused_token(await reset(mailing, token))


async def test_a_pending_address_is_withdrawn_or_taken_by_another(
    mailing: Stack, mail_box: MailServer, member: ApiUser
) -> None:
    new = f"new-{uuid4().hex}@example.com"
    body = {"email": new, "currentPassword": PASSWORD}
    await member.request("PATCH", "/users/me", json=body)
    (mail,) = await mails_about(mail_box, new, "Confirm")
    signed_up = await mailing.http.post("/auth/signup", json={"email": new, "password": PASSWORD})
    assert signed_up.status_code == 201

    taken = await verify(mailing, token_in(mail, VERIFICATION))
    assert (taken.status_code, taken.json()["error"]["code"]) == (409, "CONFLICT")
    back = {"email": member.email, "currentPassword": PASSWORD}
    withdrawn = (await member.request("PATCH", "/users/me", json=back)).json()["data"]
    assert (withdrawn["email"], withdrawn["pendingEmail"]) == (member.email, None)
    assert refused_token(await verify(mailing, token_in(mail, VERIFICATION)))


async def test_mails_speak_the_language_of_their_user(
    mailing: Stack, mail_box: MailServer, member: ApiUser
) -> None:
    await member.request("PUT", "/users/me/preferences", json={"language": "de-AT"})

    await ask_reset(mailing, member.email)

    (mail,) = await mails_about(mail_box, member.email, "Passwort")
    assert mail["Subject"] == "Passwort für app.example.com zurücksetzen"
    assert "wählen, öffne" in mail.get_content()


async def test_the_release_before_leaves_no_address_verified_that_it_changed(
    mailing: Stack, mail_box: MailServer, member: ApiUser
) -> None:
    (mail,) = await mails_about(mail_box, member.email, "Confirm")
    await verify(mailing, token_in(mail, VERIFICATION))

    await mailing.inspection.execute(
        "UPDATE users SET email = $2 WHERE id = $1", UUID(member.id), f"x{member.email}"
    )

    me = (await member.request("GET", "/users/me")).json()["data"]
    assert not me["emailVerified"]


async def test_all_of_it_is_in_the_audit_log(
    mailing: Stack, mail_box: MailServer, member: ApiUser
) -> None:
    await member.request("POST", "/auth/email-verification")
    await reset(mailing, await reset_token(mailing, mail_box, member))

    actions = [
        row["action"]
        for row in await mailing.inspection.rows(
            "SELECT action FROM audit_log WHERE subject_id = $1 OR actor_id = $1 ORDER BY id",
            UUID(member.id),
        )
    ]

    assert actions == [
        "user.signed_up",
        "user.verification_requested",
        "user.password_reset_requested",
        "user.password_reset",
    ]
