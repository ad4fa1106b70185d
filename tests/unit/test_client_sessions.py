"""Sessions of the client: tokens that are kept, refreshed and forgotten."""

import asyncio

import httpx2
import pytest

import everturn_client as everturn
from tests.fixtures.client_wire import CHAT, USER, Wire, failure, noted_pauses, session, success


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The client's pauses in seconds: none is waited for."""
    return noted_pauses(monkeypatch)


def test_signing_in_keeps_the_tokens_and_signing_out_forgets_them() -> None:
    wire = Wire(success(session(1)), success(USER), httpx2.Response(204), success(USER))
    client = wire.client()

    signed_in = client.auth.login(email="ada@example.com", password="secret")
    client.auth.me()
    client.auth.logout(refresh_token=signed_in.refresh_token)
    client.auth.me()

    assert wire.body(0) == {"email": "ada@example.com", "password": "secret"}
    assert wire.header("Authorization") == [None, "Bearer access-1", "Bearer access-1", None]
    assert "access-1" not in repr(signed_in)


def test_an_expired_token_is_refreshed_and_the_request_sent_again() -> None:
    wire = Wire(
        success(session(1)), failure(401), success(session(2)), success(CHAT, 201), success(CHAT)
    )
    client = wire.client()
    client.auth.login(email="ada@example.com", password="secret")

    client.chats.create(title="Rivers")
    client.chats.get("c-1")

    assert wire.seen[1:4] == [
        "POST /api/v1/chats",
        "POST /api/v1/auth/refresh",
        "POST /api/v1/chats",
    ]
    assert wire.body(2) == {"refreshToken": "refresh-1"}
    assert wire.header("Authorization")[3:] == ["Bearer access-2", "Bearer access-2"]
    assert wire.header("Idempotency-Key")[1] == wire.header("Idempotency-Key")[3]


def test_a_rejected_refresh_ends_the_session() -> None:
    wire = Wire(success(session(1)), failure(401), failure(401), success(USER))
    client = wire.client()
    client.auth.login(email="ada@example.com", password="secret")

    with pytest.raises(everturn.SessionExpiredError, match="Sign in again"):
        client.auth.me()

    client.auth.me()
    assert wire.header("Authorization")[-1] is None


def test_a_refresh_that_may_have_arrived_is_not_sent_again() -> None:
    wire = Wire(success(session(1)), failure(401), httpx2.ReadError("cut"))
    client = wire.client()
    client.auth.login(email="ada@example.com", password="secret")

    with pytest.raises(everturn.APIConnectionError):
        client.auth.me()

    assert len(wire.requests) == 3


def test_a_token_alone_is_not_refreshed() -> None:
    wire = Wire(failure(401))

    with pytest.raises(everturn.AuthenticationError) as caught:
        wire.client(token="t").auth.me()

    assert not isinstance(caught.value, everturn.SessionExpiredError)
    assert len(wire.requests) == 1


async def test_requests_at_the_same_time_refresh_an_expired_token_once() -> None:
    refreshed = 0

    async def answer(request: httpx2.Request) -> httpx2.Response:
        nonlocal refreshed
        if request.url.path.endswith("/auth/login"):
            return success(session(1))
        if request.url.path.endswith("/auth/refresh"):
            refreshed += 1
            return success(session(2))
        stale = request.headers["Authorization"] == "Bearer access-1"
        return failure(401) if stale else success(USER)

    http = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    async with everturn.AsyncEverturn("http://h", http_client=http) as client:
        await client.auth.login(email="ada@example.com", password="secret")
        await asyncio.gather(*(client.auth.me() for _ in range(5)))

    assert refreshed == 1
