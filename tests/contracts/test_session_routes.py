"""Sessions as their user sees and ends them; and mail where the server sends none."""

from typing import Any
from uuid import uuid4

import httpx
import pytest

from services.auth.sessions import client_name
from tests.fixtures.api_user import PASSWORD, ApiUser
from tests.fixtures.stack import Stack

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
SESSION = {"id", "createdAt", "lastUsedAt", "userAgent", "network", "current"}


async def sign_in(member: ApiUser, **headers: str) -> ApiUser:
    """Return the same user in another session."""
    response = await member.http.post(
        "/auth/login", json={"email": member.email, "password": PASSWORD}, headers=headers
    )
    assert response.status_code == 200, response.text
    return ApiUser(member.http, response.json()["data"], email=member.email)


async def sessions_of(member: ApiUser, **params: Any) -> list[dict[str, Any]]:  # noqa: ANN401 -- any value
    response = await member.request("GET", "/users/me/sessions", params=params)
    assert response.status_code == 200, response.text
    sessions: list[dict[str, Any]] = response.json()["data"]
    return sessions


async def status_of(member: ApiUser) -> int:
    return (await member.request("GET", "/users/me")).status_code


async def test_sessions_are_listed_newest_first(member: ApiUser) -> None:
    there = await sign_in(member, **{"User-Agent": FIREFOX})

    listed = await sessions_of(there)

    assert [set(session) for session in listed] == [SESSION, SESSION]
    assert [session["current"] for session in listed] == [True, False]
    assert [session["userAgent"] for session in listed] == [
        "Firefox on Linux",
        "python-httpx/0.28.1",
    ]
    assert {session["network"] for session in listed} == {"127.0.0.0/24"}
    assert [session["current"] for session in await sessions_of(member)] == [False, True]


async def test_a_refresh_belongs_to_its_session(member: ApiUser) -> None:
    (before,) = await sessions_of(member)
    body = {"refreshToken": member.session["refreshToken"]}

    await member.http.post("/auth/refresh", json=body, headers={"User-Agent": FIREFOX})

    (after,) = await sessions_of(member)
    assert (after["id"], after["createdAt"]) == (before["id"], before["createdAt"])
    assert after["lastUsedAt"] > before["lastUsedAt"]
    assert after["userAgent"] == "Firefox on Linux"


async def test_sessions_have_pages(member: ApiUser) -> None:
    for _ in range(2):
        await sign_in(member)
    everything = await sessions_of(member)

    first = await member.request("GET", "/users/me/sessions", params={"limit": 2})
    cursor = first.json()["meta"]["nextCursor"]
    rest = await member.request("GET", "/users/me/sessions", params={"cursor": cursor})

    assert first.json()["data"] + rest.json()["data"] == everything
    assert (len(everything), rest.json()["meta"]["nextCursor"]) == (3, None)


async def test_a_session_that_is_ended_is_signed_out_at_once(
    member: ApiUser, other_user: ApiUser
) -> None:
    lost = await sign_in(member)
    (session,) = [s["id"] for s in await sessions_of(lost) if s["current"]]
    assert await status_of(lost) == 200

    strangers = await other_user.request("DELETE", f"/users/me/sessions/{session}")
    ended = await member.request("DELETE", f"/users/me/sessions/{session}")
    again = await member.request("DELETE", f"/users/me/sessions/{session}")
    unknown = await member.request("DELETE", f"/users/me/sessions/{uuid4()}")

    statuses = [response.status_code for response in (strangers, ended, again, unknown)]
    assert statuses == [403, 204, 404, 404]
    assert (await status_of(lost), await status_of(member)) == (401, 200)
    body = {"refreshToken": lost.session["refreshToken"]}
    assert (await member.http.post("/auth/refresh", json=body)).status_code == 401
    assert len(await sessions_of(member)) == 1


async def test_all_other_sessions_are_ended_together(member: ApiUser) -> None:
    others = [await sign_in(member) for _ in range(2)]

    response = await member.request("DELETE", "/users/me/sessions")
    again = await member.request("DELETE", "/users/me/sessions")

    assert (response.status_code, again.status_code) == (204, 204)
    assert [await status_of(person) for person in (member, *others)] == [200, 401, 401]
    assert [session["current"] for session in await sessions_of(member)] == [True]


@pytest.mark.parametrize("permissions", [None, ["account:read", "account:write"]])
async def test_api_keys_neither_see_nor_end_sessions(
    member: ApiUser, permissions: list[str] | None
) -> None:
    (session,) = await sessions_of(member)
    body = {"name": "k"} | ({} if permissions is None else {"permissions": permissions})
    key = (await member.request("POST", "/users/me/api-keys", json=body)).json()["data"]["key"]
    headers = {"Authorization": f"Bearer {key}"}

    for method, path in (
        ("GET", "/users/me/sessions"),
        ("DELETE", "/users/me/sessions"),
        ("DELETE", f"/users/me/sessions/{session['id']}"),
    ):
        response = await member.http.request(method, path, headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (403, "FORBIDDEN")


async def test_ended_sessions_are_in_the_audit_log_and_the_export(
    member: ApiUser, stack: Stack
) -> None:
    await sign_in(member)
    await member.request("DELETE", "/users/me/sessions")

    exported = (await member.request("GET", "/users/me/export")).json()["data"]

    (entry,) = [e for e in exported["auditLog"] if e["action"] == "user.sessions_ended"]
    assert entry["details"] == {"ended": 1}
    assert len(exported["sessions"]) == 2
    assert {session["network"] for session in exported["sessions"]} == {"127.0.0.0/24"}


@pytest.mark.parametrize(
    ("user_agent", "name"),
    [
        (None, None),
        ("", None),
        (FIREFOX, "Firefox on Linux"),
        (
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
                "Chrome/141.0.0.0 Safari/537.36 Edg/141.0.0.0"
            ),
            "Edge on Windows",
        ),
        (
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 "
                "(KHTML, like Gecko) Version/26.0 Safari/605.1.15"
            ),
            "Safari on macOS",
        ),
        (
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 "
                "(KHTML, like Gecko) CriOS/141.0.0.0 Mobile/15E148 Safari/604.1"
            ),
            "Chrome on iOS",
        ),
        (
            (
                "Mozilla/5.0 (Linux; Android 15; K) AppleWebKit/537.36 (KHTML, like Gecko) "
                "Chrome/141.0.0.0 Mobile Safari/537.36"
            ),
            "Chrome on Android",
        ),
        ("Mozilla/5.0", "Browser"),
        ("curl/8.5.0", "curl/8.5.0"),
        ("everturn-client/1.0 (+https://example.com)", "everturn-client/1.0"),
        ("<script>alert(1)</script>", None),
        ("\x00\x01", None),
        ("x" * 5000, "x" * 41),
        ("Größe/1", "Gr"),
    ],
)
def test_a_client_is_named_in_short(user_agent: str | None, name: str | None) -> None:
    assert client_name(user_agent) == name


async def test_a_server_without_mail_says_so(recorded: httpx.AsyncClient, member: ApiUser) -> None:
    reset = await recorded.post("/auth/password-reset", json={"email": member.email})
    unknown = await recorded.post("/auth/password-reset", json={"email": "x@example.com"})
    verification = await member.request("POST", "/auth/email-verification")

    for response in (reset, unknown, verification):
        assert (response.status_code, response.json()["error"]["code"]) == (403, "FORBIDDEN")
        assert "sends no mail" in response.json()["error"]["message"]
    assert member.session["user"]["emailVerified"] is False
