"""Accounts: who is let in, with what, and for how long."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import httpx
import jwt
import pytest

from api.app import create_app
from schema.ids import UserId
from services.auth.credentials import AccessTokens
from services.auth.sessions import REFRESH_GRACE
from services.settings import Settings
from tests.fixtures.api_user import PASSWORD, ApiUser
from tests.fixtures.database import Inspection
from tests.fixtures.serving import serving
from tests.fixtures.stack import Stack, api_client
from workers.composition.api import open_api_services


async def log_in(http: httpx.AsyncClient, email: str, password: str = PASSWORD) -> httpx.Response:
    return await http.post("/auth/login", json={"email": email, "password": password})


async def refresh(http: httpx.AsyncClient, token: str, *, browser: str = "one") -> httpx.Response:
    headers = {"User-Agent": browser}
    return await http.post("/auth/refresh", json={"refreshToken": token}, headers=headers)


def check_unauthenticated(response: httpx.Response) -> None:
    assert response.status_code == 401, response.text
    assert response.json()["error"]["code"] == "UNAUTHENTICATED"
    assert response.headers["www-authenticate"] == "Bearer"


async def test_signing_up_signs_in(user: ApiUser) -> None:
    me = await user.request("GET", "/auth/me")

    assert me.json()["data"] == user.session["user"]
    assert me.json()["data"]["email"] == user.email
    assert user.session["tokenType"] == "Bearer"
    assert user.session["expiresIn"] == 15 * 60


async def test_where_sign_up_is_closed_accounts_sign_in_and_none_is_created(
    user: ApiUser, stack: Stack
) -> None:
    closed = replace(
        stack.foundation, settings=stack.settings.model_copy(update={"sign_up": False})
    )
    async with (
        open_api_services(closed, stack.temporal, eager=False) as services,
        serving(create_app(services, max_body_bytes=10_000)) as origin,
        api_client(origin) as http,
    ):
        body = {"email": f"{uuid4().hex}@example.com", "password": PASSWORD}
        refused = await http.post("/auth/signup", json=body)
        existing = await http.post("/auth/signup", json=body | {"email": user.email})
        signed_in = await log_in(http, user.email)
        missing = await log_in(http, body["email"])

    assert refused.status_code == existing.status_code == 403
    assert refused.json()["error"]["message"] == "Sign-up is closed. Ask an administrator."
    assert signed_in.status_code == 200
    assert missing.status_code == 401


async def test_the_password_signs_in_and_another_does_not(
    user: ApiUser, http: httpx.AsyncClient
) -> None:
    good = await log_in(http, user.email)
    bad = await log_in(http, user.email, "not the password")

    assert good.status_code == 200
    assert good.json()["data"]["user"]["id"] == user.id
    check_unauthenticated(bad)


async def test_an_unknown_email_is_rejected_like_a_wrong_password(
    user: ApiUser, http: httpx.AsyncClient
) -> None:
    wrong = await log_in(http, user.email, "not the password")
    unknown = await log_in(http, f"{uuid4().hex}@example.com")

    check_unauthenticated(unknown)
    assert unknown.json()["error"] == wrong.json()["error"]


async def test_an_email_has_one_account_regardless_of_case(
    user: ApiUser, http: httpx.AsyncClient
) -> None:
    shouted = user.email.upper()

    again = await http.post("/auth/signup", json={"email": shouted, "password": PASSWORD})
    signed_in = await log_in(http, shouted)

    assert again.status_code == 409
    assert again.json()["error"]["code"] == "CONFLICT"
    assert signed_in.json()["data"]["user"]["id"] == user.id


async def test_concurrent_signups_of_one_email_create_one_account(
    http: httpx.AsyncClient,
) -> None:
    body = {"email": f"{uuid4().hex}@example.com", "password": PASSWORD}

    responses = await asyncio.gather(*(http.post("/auth/signup", json=body) for _ in range(5)))

    assert sorted(response.status_code for response in responses) == [201, 409, 409, 409, 409]


async def test_passwords_are_kept_as_argon2id_hashes(user: ApiUser, inspection: Inspection) -> None:
    (row,) = await inspection.rows("SELECT * FROM credentials WHERE user_id = $1", UUID(user.id))

    assert row["password_hash"].startswith("$argon2id$")
    assert PASSWORD not in str(row)


async def test_refresh_tokens_are_not_kept(user: ApiUser, inspection: Inspection) -> None:
    rows = await inspection.rows("SELECT * FROM refresh_tokens WHERE user_id = $1", UUID(user.id))

    assert len(rows) == 1
    assert user.session["refreshToken"] not in str(rows)
    assert user.session["refreshToken"].encode() not in rows[0]["token_hash"]


async def test_refreshing_gives_new_tokens(user: ApiUser, http: httpx.AsyncClient) -> None:
    response = await refresh(http, user.session["refreshToken"])

    session = response.json()["data"]
    assert response.status_code == 200
    assert session["refreshToken"] != user.session["refreshToken"]
    headers = {"Authorization": f"Bearer {session['accessToken']}"}
    assert (await http.get("/auth/me", headers=headers)).json()["data"]["id"] == user.id


async def test_using_a_refresh_token_twice_ends_its_whole_family(
    user: ApiUser, http: httpx.AsyncClient
) -> None:
    other_family = (await log_in(http, user.email)).json()["data"]["refreshToken"]
    first = user.session["refreshToken"]
    second = (await refresh(http, first)).json()["data"]["refreshToken"]
    third = (await refresh(http, second)).json()["data"]["refreshToken"]

    check_unauthenticated(await refresh(http, first))

    check_unauthenticated(await refresh(http, third))
    assert (await refresh(http, other_family)).status_code == 200


async def test_tabs_that_refresh_at_once_keep_their_session(
    user: ApiUser, http: httpx.AsyncClient
) -> None:
    token = user.session["refreshToken"]

    responses = await asyncio.gather(*(refresh(http, token) for _ in range(4)))

    assert [response.status_code for response in responses] == [200] * 4
    sessions = [response.json()["data"] for response in responses]
    (following,) = {session["refreshToken"] for session in sessions}
    for session in sessions:
        headers = {"Authorization": f"Bearer {session['accessToken']}"}
        assert (await http.get("/auth/me", headers=headers)).status_code == 200
    assert (await refresh(http, following)).status_code == 200


@pytest.mark.parametrize("copied", ["elsewhere", "late"])
async def test_a_copied_refresh_token_is_found_out(
    user: ApiUser, http: httpx.AsyncClient, inspection: Inspection, copied: str
) -> None:
    token = user.session["refreshToken"]
    winner = (await refresh(http, token)).json()["data"]["refreshToken"]
    if copied == "late":
        await inspection.execute(
            "UPDATE refresh_tokens SET used_at = now() - $2::interval WHERE user_id = $1 "
            "AND used_at IS NOT NULL",
            UUID(user.id),
            REFRESH_GRACE,
        )

    check_unauthenticated(await refresh(http, token, browser=copied if copied != "late" else "one"))

    check_unauthenticated(await refresh(http, winner))
    actions = [action for action, _ in await audited(inspection, user.id)]
    assert actions == ["user.signed_up", "user.token_reused"]


async def test_logging_out_ends_the_family(user: ApiUser, http: httpx.AsyncClient) -> None:
    first = user.session["refreshToken"]
    second = (await refresh(http, first)).json()["data"]["refreshToken"]

    out = await http.post("/auth/logout", json={"refreshToken": second})

    assert (out.status_code, out.content) == (204, b"")
    check_unauthenticated(await refresh(http, second))
    check_unauthenticated(await user.request("GET", "/auth/me"))
    unknown = await http.post("/auth/logout", json={"refreshToken": "unknown"})
    assert unknown.status_code == 204


async def test_an_expired_refresh_token_is_rejected(
    user: ApiUser, http: httpx.AsyncClient, inspection: Inspection
) -> None:
    await inspection.execute(
        "UPDATE refresh_tokens SET expires_at = now() WHERE user_id = $1", UUID(user.id)
    )

    check_unauthenticated(await refresh(http, user.session["refreshToken"]))


async def test_a_disabled_account_cannot_sign_in(
    user: ApiUser, http: httpx.AsyncClient, inspection: Inspection
) -> None:
    await inspection.execute("UPDATE users SET status = 'disabled' WHERE id = $1", UUID(user.id))

    check_unauthenticated(await log_in(http, user.email))
    check_unauthenticated(await refresh(http, user.session["refreshToken"]))


def expired(settings: Settings, user_id: str) -> str:
    assert settings.auth_secret is not None
    tokens = AccessTokens(settings.auth_secret.get_secret_value(), lifetime=timedelta(minutes=-1))
    return tokens.issue(UserId(UUID(user_id)))


def unsigned(_: Settings, user_id: str) -> str:
    return jwt.encode({"iss": "everturn", "sub": user_id, "typ": "user"}, "", algorithm="none")


def of_another_secret(_: Settings, user_id: str) -> str:
    tokens = AccessTokens("x" * 40, lifetime=timedelta(minutes=5))
    return tokens.issue(UserId(UUID(user_id)))


@pytest.mark.parametrize("make", [expired, unsigned, of_another_secret])
async def test_a_foreign_or_expired_token_is_rejected(
    user: ApiUser, http: httpx.AsyncClient, settings: Settings, make: object
) -> None:
    assert callable(make)
    headers = {"Authorization": f"Bearer {make(settings, user.id)}"}

    check_unauthenticated(await http.get("/auth/me", headers=headers))


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer garbage", "Basic YTpi", "Bearer a.b.c", "\xff"]
)
async def test_a_header_that_holds_no_token_is_refused(
    http: httpx.AsyncClient, header: str
) -> None:
    response = await http.get("/auth/me", headers={b"Authorization": header.encode("latin-1")})

    check_unauthenticated(response)


async def test_the_token_of_an_account_that_is_gone_is_refused(
    user: ApiUser, inspection: Inspection
) -> None:
    await inspection.execute("DELETE FROM users WHERE id = $1", UUID(user.id))

    check_unauthenticated(await user.request("GET", "/auth/me"))


async def audited(inspection: Inspection, user_id: str) -> list[tuple[str, str]]:
    """Return the audit log entries of a user: actions and their details."""
    rows = await inspection.rows(
        "SELECT action, details FROM audit_log WHERE $1 IN (actor_id, subject_id) ORDER BY id",
        UUID(user_id),
    )
    return [(row["action"], row["details"]) for row in rows]


async def test_successful_and_failed_logins_are_in_the_audit_log(
    user: ApiUser, http: httpx.AsyncClient, inspection: Inspection
) -> None:
    await log_in(http, user.email)
    await log_in(http, user.email, "not the password")
    await inspection.execute("UPDATE users SET status = 'disabled' WHERE id = $1", UUID(user.id))
    await log_in(http, user.email)

    assert await audited(inspection, user.id) == [
        ("user.signed_up", "{}"),
        ("user.signed_in", "{}"),
        ("user.sign_in_refused", '{"reason": "wrong_password"}'),
        ("user.sign_in_refused", '{"reason": "disabled"}'),
    ]


async def test_an_address_without_an_account_is_not_written_to_the_audit_log(
    http: httpx.AsyncClient, inspection: Inspection
) -> None:
    name = uuid4().hex
    response = await log_in(http, f"{name}@example.com")

    (row,) = await inspection.rows(
        "SELECT * FROM audit_log WHERE request_id = $1", response.headers["x-request-id"]
    )
    assert (row["action"], row["subject_id"]) == ("user.sign_in_refused", None)
    assert name not in str(row)


async def test_no_token_of_a_family_that_ends_is_good_however_the_requests_meet(
    user: ApiUser, http: httpx.AsyncClient, inspection: Inspection
) -> None:
    used = user.session["refreshToken"]
    newest = (await refresh(http, used)).json()["data"]["refreshToken"]

    await asyncio.gather(
        refresh(http, newest), refresh(http, used, browser="another"), refresh(http, newest)
    )

    good = "SELECT count(*) FROM refresh_tokens WHERE user_id = $1 AND revoked_at IS NULL"
    assert await inspection.value(good, UUID(user.id)) == 0


async def sign_up(http: httpx.AsyncClient, email: str, key: str, **changed: str) -> httpx.Response:
    body = {"email": email, "password": PASSWORD, **changed}
    return await http.post("/auth/signup", json=body, headers={"Idempotency-Key": key})


async def test_a_repeated_signup_signs_in_to_the_account_it_created(
    http: httpx.AsyncClient,
) -> None:
    email, key = f"{uuid4().hex}@example.com", uuid4().hex

    responses = await asyncio.gather(*(sign_up(http, email, key) for _ in range(3)))

    assert [response.status_code for response in responses] == [201, 201, 201]
    assert len({response.json()["data"]["user"]["id"] for response in responses}) == 1


async def test_a_key_of_a_signup_opens_nothing_without_the_same_request(
    http: httpx.AsyncClient, inspection: Inspection
) -> None:
    email, key = f"{uuid4().hex}@example.com", uuid4().hex
    created = await sign_up(http, email, key)

    other_password = await sign_up(http, email, key, password="another password")
    other_name = await sign_up(http, email, key, displayName="Ada")
    other_key = await sign_up(http, email, uuid4().hex)

    assert created.status_code == 201
    for response, code in (
        (other_password, "IDEMPOTENCY_CONFLICT"),
        (other_name, "IDEMPOTENCY_CONFLICT"),
        (other_key, "CONFLICT"),
    ):
        assert (response.status_code, response.json()["error"]["code"]) == (409, code)
    user_id = UUID(created.json()["data"]["user"]["id"])
    stored = await inspection.rows("SELECT * FROM creations WHERE user_id = $1", user_id)
    assert len(stored) == 1
