"""HEAD: what GET says of itself, without what it says."""

import asyncio
from urllib.parse import urlsplit

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.scripted_model.scripts import Script
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.stack import Stack


@pytest.mark.parametrize(
    "path", ["/chats", "/chats/{chat}", "/health/live", "/users/me/preferences"]
)
async def test_head_is_answered_with_the_head_of_get(user: ApiUser, path: str) -> None:
    address = path.format(chat=await user.create_chat())

    got = await user.request("GET", address)
    head = await user.request("HEAD", address)

    assert head.status_code == got.status_code == 200
    assert head.content == b""
    changing = {"date", "x-request-id"}
    assert {name: value for name, value in head.headers.items() if name not in changing} == {
        name: value for name, value in got.headers.items() if name not in changing
    }


async def test_nothing_follows_the_head_on_the_wire(stack: Stack) -> None:
    address = urlsplit(stack.origin)
    request = b"HEAD /api/v1/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), timeout=10)
    writer.close()
    await writer.wait_closed()

    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("path", "status"),
    [("/chats/none", 400), ("/nowhere", 404), ("/auth/login", 405), ("/auth/me", 401)],
)
async def test_head_is_rejected_where_get_is(stack: Stack, path: str, status: int) -> None:
    user = await stack.sign_up()
    headers = {} if status == 401 else user.headers

    head = await stack.http.head(path, headers=headers)
    got = await stack.http.get(path, headers=headers)

    assert head.status_code == got.status_code == status
    assert head.content == b""


async def test_an_event_stream_has_no_head(user: ApiUser, stack: Stack) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Yes."))
    turn = (await user.ask(await user.create_chat(), question))["turn"]["id"]

    head = await user.request("HEAD", f"/turns/{turn}/events")

    assert head.status_code == 405
    assert head.headers["allow"] == "GET"


async def test_a_method_not_allowed_lists_head(user: ApiUser) -> None:
    refused = await user.request("PUT", "/chats")

    assert refused.status_code == 405
    assert refused.headers["allow"] == "GET, HEAD, POST"


async def test_head_is_counted_as_itself_by_the_template_of_its_route(
    user: ApiUser, stack: Stack
) -> None:
    labels = {"method": "HEAD", "route": "/api/v1/chats/{chat_id}", "status": "2xx"}
    chat = await user.create_chat()

    await user.request("HEAD", f"/chats/{chat}")

    metrics = generate_latest(stack.app.state.metrics.registry).decode()
    samples = [s for family in text_string_to_metric_families(metrics) for s in family.samples]
    counted = [
        s for s in samples if s.name == "everturn_http_requests_total" and s.labels == labels
    ]
    assert counted[0].value >= 1
