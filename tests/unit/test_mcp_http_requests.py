"""Requests to MCP servers over HTTP that fail, fail by themselves and say what is known of it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import JSONRPCError

from services.mcp.errors import Outlook
from services.mcp.http import FailureAsResponse, HttpFailure, IsolatedRequests
from services.mcp.limits import MAX_ANSWER_BYTES
from services.outgoing.errors import (
    BrokenConnectionError,
    ConnectFailedError,
    ForbiddenAddressError,
    NotTrustedError,
    OutgoingError,
    RedirectedError,
    UnknownHostError,
)
from services.outgoing.transport import MAX_COOKIES, FewCookies

SEAL = FailureAsResponse()
URL = "http://mcp.test/mcp"


def requests_to(answer: Callable[[httpx2.Request], Any]) -> IsolatedRequests:
    return IsolatedRequests(httpx2.MockTransport(answer), SEAL)


def a_call(**headers: str) -> httpx2.Request:
    body = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {}}
    return httpx2.Request("POST", URL, json=body, headers=headers)


async def failure_of(
    answer: Callable[[httpx2.Request], Any], request: httpx2.Request | None = None
) -> HttpFailure | None:
    response = await requests_to(answer).handle_async_request(request or a_call())
    error = JSONRPCError.model_validate_json(await response.aread())
    assert error.id == 7
    return SEAL.failure_of(MCPError.from_error_data(error.error))


@pytest.mark.parametrize(
    ("error", "reached"),
    [(ConnectFailedError(), False), (BrokenConnectionError(reached=True), True)],
)
async def test_an_outage_reports_whether_the_server_may_have_acted(
    error: OutgoingError, *, reached: bool
) -> None:
    async def broken(_: httpx2.Request) -> httpx2.Response:
        raise error

    assert await failure_of(broken) == HttpFailure(
        error.sentence, reached=reached, is_unreachable=not reached
    )


@pytest.mark.parametrize(
    "error",
    [
        ForbiddenAddressError(),
        UnknownHostError(is_final=True),
        NotTrustedError("The TLS certificate is invalid."),
    ],
)
async def test_what_keeps_requests_from_being_sent_is_no_outage(error: OutgoingError) -> None:
    async def refused(_: httpx2.Request) -> httpx2.Response:
        raise error

    assert await failure_of(refused) == HttpFailure(
        error.sentence, reached=False, is_unreachable=True, outlook="refused"
    )


async def test_a_redirect_is_refused() -> None:
    failure = await failure_of(lambda _: httpx2.Response(307, headers={"Location": "/other"}))

    assert failure == HttpFailure(RedirectedError().sentence, reached=True, outlook="refused")


@pytest.mark.parametrize(
    ("status", "reached", "outlook"),
    [
        (400, True, "refused"),
        (401, False, "refused"),
        (403, False, "refused"),
        (404, True, "missing"),
        (405, True, "refused"),
        (408, True, "away"),
        (410, True, "refused"),
        (415, True, "refused"),
        (422, True, "refused"),
        (425, True, "away"),
        (429, False, "away"),
        (500, True, "away"),
        (503, True, "away"),
    ],
)
async def test_a_status_is_a_sentence_and_an_outlook(
    status: int, outlook: Outlook, *, reached: bool
) -> None:
    failure = await failure_of(
        lambda _: httpx2.Response(status, headers={"Retry-After": "7"}, text="<html>")
    )

    assert failure == HttpFailure(
        f"The server responded with HTTP status {status}.",
        reached=reached,
        retry_after_s=7,
        outlook=outlook,
    )


async def test_a_missing_session_is_not_a_missing_page() -> None:
    def missing(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(404)

    lost = await failure_of(missing, a_call(**{"mcp-session-id": "s"}))

    assert lost is not None
    assert lost.is_session_lost
    assert not lost.reached


RPC_ERROR = {"jsonrpc": "2.0", "id": 7, "error": {"code": -32602, "message": "no"}}


async def test_a_json_rpc_error_remains_the_servers() -> None:
    assert await failure_of(lambda _: httpx2.Response(400, json=RPC_ERROR)) is None


@pytest.mark.parametrize("status", [401, 403])
async def test_who_may_not_call_is_refused_in_whatever_form(status: int) -> None:
    failure = await failure_of(lambda _: httpx2.Response(status, json=RPC_ERROR))

    assert failure is not None
    assert (failure.outlook, failure.reached) == ("refused", False)


async def test_failures_cannot_be_forged() -> None:
    forged = FailureAsResponse().message(HttpFailure("Nothing happened.", reached=False), 7)

    assert await failure_of(lambda _: httpx2.Response(500, content=forged)) is None


async def test_an_answer_that_is_too_long_is_not_read_to_its_end() -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 65_536
            yield b"x" * 65_536

    failure = await failure_of(lambda _: httpx2.Response(200, content=endless()))

    assert failure is not None
    assert failure.is_too_long
    assert read <= MAX_ANSWER_BYTES + 2 * 65_536


async def test_an_abandoned_stream_ends_with_our_own_error() -> None:
    begun = asyncio.Event()

    async def silent() -> AsyncIterator[bytes]:
        begun.set()
        await asyncio.Event().wait()
        yield b""

    def answer(request: httpx2.Request) -> httpx2.Response:
        if "notifications/cancelled" in request.content.decode():
            return httpx2.Response(202)
        headers = {"Content-Type": "text/event-stream"}
        return httpx2.Response(200, headers=headers, content=silent())

    requests = requests_to(answer)
    response = await requests.handle_async_request(a_call())
    reading = asyncio.create_task(response.aread())
    await begun.wait()
    body = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}

    accepted = await requests.handle_async_request(httpx2.Request("POST", URL, json=body))

    assert accepted.status_code == 202
    async with asyncio.timeout(5):
        data = (await reading).decode().partition("data: ")[2]
    assert json.loads(data)["error"]["message"] == "The call was cancelled."


async def test_a_failed_notification_is_ignored() -> None:
    async def broken(_: httpx2.Request) -> httpx2.Response:
        raise ConnectFailedError

    body = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    request = httpx2.Request("POST", URL, json=body)

    assert (await requests_to(broken).handle_async_request(request)).status_code == 202


@pytest.mark.parametrize(
    "body",
    [
        {"jsonrpc": "2.0", "id": 8, "result": {}},
        {"jsonrpc": "2.0", "id": None, "error": {"code": 1, "message": "no"}},
        {"jsonrpc": "2.0", "method": "notifications/message"},
        {},
    ],
)
async def test_a_response_for_another_request_is_not_waited_on(body: object) -> None:
    failure = await failure_of(lambda _: httpx2.Response(200, json=body))

    assert failure == HttpFailure("The server's response is for a different request.", reached=True)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"<html>", b"[" * 100_000, b"x" * 300_000])
async def test_a_response_that_cannot_be_read_is_left_to_the_session(body: bytes) -> None:
    response = await requests_to(lambda _: httpx2.Response(200, content=body)).handle_async_request(
        a_call()
    )

    assert await response.aread() == body


async def test_a_stream_that_says_too_much_ends_with_our_own_error() -> None:
    async def flood() -> AsyncIterator[bytes]:
        yield b": hello\n\n"
        while True:
            yield b"\n" * 100_000

    headers = {"Content-Type": "text/event-stream"}
    requests = requests_to(lambda _: httpx2.Response(200, headers=headers, content=flood()))
    response = await requests.handle_async_request(a_call())

    first, event = (await response.aread()).decode().split("data: ")

    assert first.strip() == ": hello"
    message = json.loads(event)
    assert (message["id"], message["error"]["message"]) == (
        7,
        "The server sent too much without answering.",
    )


async def test_a_flood_is_slowed_down_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    async def flood() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"data: 1\n\n" * 1_000

    # For this module alone: servers of other tests in this process would never pause again.
    patched = SimpleNamespace(**{**vars(asyncio), "sleep": sleep})
    monkeypatch.setattr("services.mcp.http.asyncio", patched)
    headers = {"Content-Type": "text/event-stream"}
    requests = requests_to(lambda _: httpx2.Response(200, headers=headers, content=flood()))
    response = await requests.handle_async_request(a_call())

    assert (await response.aread()).count(b"data") == 10_000
    assert waited[0] == 0
    assert waited[-1] == pytest.approx(18, abs=1)


def test_a_server_cannot_fill_memory_with_cookies() -> None:
    cookies = httpx2.Cookies(FewCookies())

    for number in range(1_000):
        cookies.set(f"c{number}", "v")

    assert 0 < len(cookies) <= MAX_COOKIES
    assert cookies["c999"] == "v"
