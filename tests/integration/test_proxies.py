"""docs/proxies.md with the real programs: what of Everturn survives the way through each one."""

import asyncio
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from tests.fakes.scripted_model.scripts import Script
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.event_stream import rebuild
from tests.fixtures.proxies import NAMES, Proxy, running_proxy
from tests.fixtures.serving import BEHIND_PROXY, serving
from tests.fixtures.stack import Stack
from tests.integration.test_rate_limits import client_of
from tests.integration.test_rate_limits_http import limited_app, renew
from tests.running_everturn.waiting import eventually

TWENTY_MIB = 20 * 1024 * 1024
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
UNAVAILABLE = OK.replace(b"200 OK", b"503 Service Unavailable")
WITHOUT_CHECKS = {"nginx"}
"""It tries another API instead, where one refuses the connection."""


@pytest.fixture(scope="module")
async def app(stack: Stack) -> AsyncIterator[FastAPI]:
    async with client_of(stack.addresses.redis) as redis:
        yield limited_app(stack, redis)


@pytest.fixture(scope="module")
async def origin(app: FastAPI) -> AsyncIterator[str]:
    """An API that believes what proxies of this machine say of their clients."""
    async with serving(app, bounds=BEHIND_PROXY) as served:
        yield served


@pytest.fixture(scope="module", params=NAMES)
async def proxy(
    request: pytest.FixtureRequest, origin: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Proxy]:
    name: str = request.param
    async with running_proxy(name, tmp_path_factory.mktemp(name), origin) as running:
        yield running


@pytest.fixture
async def client(proxy: Proxy) -> AsyncIterator[httpx.AsyncClient]:
    async with proxy.client() as opened:
        yield opened


@pytest.fixture
async def visitor(client: httpx.AsyncClient, user: ApiUser) -> ApiUser:
    """A user who comes through the proxy."""
    return ApiUser(client, user.session, email=user.email)


async def test_text_arrives_while_the_model_holds_the_rest(visitor: ApiUser, stack: Stack) -> None:
    question = unique()
    stack.model.add(Script(match=question, pieces=("At ", "last."), hold=question, hold_after=1))
    chat = await visitor.create_chat()

    async with visitor.stream(chat, question) as stream:
        await stream.until_text("At ")
        stack.model.release(question)
        events = await stream.all()

    assert rebuild(events) == "At last."
    await visitor.check_whole(chat, events)


async def test_browsers_get_streams_over_http_2(proxy: Proxy, user: ApiUser, stack: Stack) -> None:
    curl = shutil.which("curl")
    assert curl is not None
    question = unique()
    stack.model.add(Script(match=question, pieces=("At ", "last."), hold=question, hold_after=1))
    chat = await user.create_chat()
    process = await asyncio.create_subprocess_exec(
        *(curl, "--http2", "-sS", "--no-buffer", "--include", "--cacert", proxy.authority),
        *("--noproxy", "*", "--max-time", "60"),
        *("--header", f"Authorization: {user.headers['Authorization']}"),
        *("--header", "Content-Type: application/json"),
        *("--data", f'{{"content": "{question}", "stream": true}}'),
        f"{proxy.origin}/api/v1/chats/{chat}/messages",
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    head = await process.stdout.readuntil(b"\r\n\r\n")
    await process.stdout.readuntil(b'"text":"At "')
    stack.model.release(question)
    rest = await process.stdout.read()

    assert head.startswith(b"HTTP/2 200")
    assert b"event: done" in rest
    assert await process.wait() == 0


async def test_a_cut_stream_resumes_after_its_last_event(visitor: ApiUser, stack: Stack) -> None:
    question = unique()
    stack.model.add(Script(match=question, pieces=("Cut ", "and ", "whole."), hold=question))
    chat = await visitor.create_chat()
    async with visitor.stream(chat, question) as stream:
        await stream.until_named("step")
        seen = list(stream.seen)

    stack.model.release(question)
    resumed = await visitor.events(stream.turn_id, after=seen[-1].id)

    assert rebuild([*seen, *resumed]) == "Cut and whole."
    await visitor.check_whole(chat, [*seen, *resumed])


async def test_a_client_that_leaves_ends_its_request_at_the_api(
    visitor: ApiUser, stack: Stack, app: FastAPI
) -> None:
    question, pieces = unique(), ("word ",) * 400
    stack.model.add(Script(match=question, pieces=pieces, delay_between_s=0.05, hold=question))
    chat = await visitor.create_chat()

    async def open_streams() -> float:
        return float(app.state.metrics.open_streams._value.get())

    async with AsyncExitStack() as leaving:
        stream = await leaving.enter_async_context(visitor.stream(chat, question))
        await stream.until_named("step")
        assert await open_streams() == 1
    stack.model.release(question)
    await eventually(open_streams, lambda count: count == 0, within_s=15)

    await visitor.cancel(stream.turn_id)
    assert (await visitor.events(stream.turn_id))[-1].data["status"] == "cancelled"


async def test_a_document_passes_up_to_the_limit_and_everturn_refuses_more(
    visitor: ApiUser,
) -> None:
    def file(size: int) -> dict[str, tuple[str, bytes]]:
        return {"file": ("a.txt", b"x " * (size // 2))}

    accepted = await visitor.request("POST", "/knowledge", files=file(TWENTY_MIB))
    refused = await visitor.request("POST", "/knowledge", files=file(TWENTY_MIB + 2))

    assert accepted.status_code == 201
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "PAYLOAD_TOO_LARGE")


async def test_a_head_of_60_kib_passes(visitor: ApiUser) -> None:
    response = await visitor.request("GET", "/chats", headers={"X-Long": "x" * 60 * 1024})

    assert response.status_code == 200, response.text


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 127.0.0.1 is the only address")
async def test_limits_are_those_of_the_client_whatever_it_claims_to_be(proxy: Proxy) -> None:
    own, other = (f"127.{NAMES.index(proxy.name) + 1}.0.{host}" for host in (1, 2))
    statuses = []
    async with proxy.client(address=own) as client:
        for number in range(10):
            client.headers["X-Forwarded-For"] = f"10.0.0.{number}, 127.0.0.1"
            statuses.append((await renew(client)).status_code)
    async with proxy.client(address=other) as client:
        client.headers["X-Forwarded-For"] = own
        statuses.append((await renew(client)).status_code)

    assert statuses == [401] * 8 + [429] * 2 + [401]


async def test_metrics_are_not_public(proxy: Proxy, client: httpx.AsyncClient) -> None:
    responses = [await client.get(f"{proxy.origin}{path}") for path in ("/metrics", "/ready")]

    assert [response.status_code for response in responses] == [404, 404]


class SmallApi:
    """An API without Everturn: ready or not, it answers requests or ends their connection."""

    def __init__(self) -> None:
        self.origin = ""
        self.is_ready = True
        self.answers = True
        self.received: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = re.findall(r"content-length: (\d+)", head, re.IGNORECASE)
        await reader.readexactly(int(length[0]) if length else 0)
        if "/health/ready" in head:
            writer.write(OK if self.is_ready else UNAVAILABLE)
        else:
            self.received.append(head.partition(" HTTP/")[0])
            writer.write(OK if self.answers else b"")
        writer.close()


@asynccontextmanager
async def small_api() -> AsyncIterator[tuple[SmallApi, asyncio.Server]]:
    api = SmallApi()
    async with await asyncio.start_server(api.serve, "127.0.0.1", 0) as server:
        api.origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield api, server


async def statuses_of(client: httpx.AsyncClient, requests: int) -> set[int]:
    """Return the statuses that as many messages get, one after the other."""
    responses = [await client.post("/x", json={"content": "Hello"}) for _ in range(requests)]
    return {response.status_code for response in responses}


@pytest.mark.parametrize("name", NAMES)
async def test_a_message_whose_connection_dies_is_not_sent_again(name: str, tmp_path: Path) -> None:
    async with (
        small_api() as (one, _),
        small_api() as (other, _),
        running_proxy(name, tmp_path, one.origin, other.origin) as proxy,
        proxy.client() as client,
    ):
        one.answers = other.answers = False
        response = await client.post("/chats/x/messages", json={"content": "Once"})

    assert response.status_code in {502, 503}
    assert [*one.received, *other.received] == ["POST /api/v1/chats/x/messages"]


@pytest.mark.parametrize("name", NAMES)
async def test_no_message_fails_while_one_api_of_two_is_replaced(name: str, tmp_path: Path) -> None:
    async with (
        small_api() as (leaving, server),
        small_api() as (staying, _),
        running_proxy(name, tmp_path, leaving.origin, staying.origin) as proxy,
        proxy.client() as client,
    ):

        async def both_are_used() -> bool:
            assert await statuses_of(client, 4) == {200}
            return bool(leaving.received and staying.received)

        async def is_left_alone() -> bool:
            # By chance it would be, once in a million times.
            before = len(leaving.received)
            assert await statuses_of(client, 20) == {200}
            return len(leaving.received) == before

        await eventually(both_are_used, bool)
        leaving.is_ready = False
        if name not in WITHOUT_CHECKS:
            await eventually(is_left_alone, bool, within_s=10)
        server.close()

        assert await statuses_of(client, 20) == {200}
