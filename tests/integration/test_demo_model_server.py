"""The demo model as a server: where it listens, how others script and watch it, how it ends."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anthropic
import httpx2
import pytest

from tests.fakes.scripted_model.model import ScriptedModel
from tests.fakes.scripted_model.scripts import Script
from tests.fakes.scripted_model.server import serve
from tests.fixtures.messages_client import only_text, stream
from workers.demo_model.app import create_app as create_demo
from workers.demo_model.server import serve_app

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model() -> ScriptedModel:
    return ScriptedModel()


@pytest.fixture(scope="module")
async def url(model: ScriptedModel) -> AsyncIterator[str]:
    async with serve(model) as url:
        yield url


@pytest.fixture(scope="module")
async def client(url: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(api_key="key", base_url=url, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
async def http(url: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=url) as http:
        yield http


@pytest.fixture(autouse=True)
def no_script_is_left(model: ScriptedModel) -> Iterator[None]:
    yield
    model.clear_scripts()


async def test_waiting_for_a_request_that_does_not_come_times_out(model: ScriptedModel) -> None:
    with pytest.raises(TimeoutError):
        await model.wait_for_request(timeout_s=0.001, match="nobody says this")


async def test_closing_the_server_ends_its_streams() -> None:
    model = ScriptedModel()
    model.add(Script(text="Hello", stall_after=1))
    async with anthropic.AsyncAnthropic(api_key="key", base_url="http://x", max_retries=0) as base:
        async with serve(model) as url:
            asking = asyncio.create_task(stream(base.with_options(base_url=url)))
            record = await model.wait_for_request()
            await model.wait_until(lambda: record.deltas_sent == 1)

        with pytest.raises(httpx2.TransportError):
            await asking
    assert record.ended


async def test_another_process_scripts_watches_and_releases(
    model: ScriptedModel, client: anthropic.AsyncAnthropic, http: httpx2.AsyncClient
) -> None:
    script = {"match": "from afar", "pieces": ["a", "b"], "hold": "far gate", "hold_after": 1}
    added = await http.post("/demo/scripts", json=[script])
    asking = asyncio.create_task(stream(client, "This is from afar"))
    waited: dict[str, str | int] = {"match": "from afar", "wait_for": 1}

    received = await http.get("/demo/requests", params=waited)
    released = await http.post("/demo/release/far gate")
    ended = await http.get("/demo/requests", params=waited | {"ended": True})

    assert (added.status_code, added.json()) == (201, {"unused_scripts": 1})
    assert released.status_code == 204
    assert only_text(await asking) == "ab"
    assert [request["finished"] for request in received.json()["requests"]] == [False]
    assert ended.json()["requests"] == [model.requests[-1].as_json()]


async def test_scripts_from_another_process_are_validated_and_cleared(
    model: ScriptedModel, http: httpx2.AsyncClient
) -> None:
    refused = await http.post("/demo/scripts", json={"txet": "Hello"})
    await http.post("/demo/scripts", json={"text": "Hello"})
    cleared = await http.delete("/demo/scripts")

    assert refused.status_code == 400
    assert "txet" in refused.json()["error"]["message"]
    assert (cleared.status_code, model.unused_scripts) == (204, 0)


@pytest.mark.parametrize(
    ("params", "status"),
    [({"wait_for": "many"}, 400), ({"wait_for": 1, "match": "nobody", "timeout_s": 0.001}, 408)],
)
async def test_requests_that_cannot_be_listed_are_an_error(
    http: httpx2.AsyncClient, params: dict[str, str | int | float], status: int
) -> None:
    assert (await http.get("/demo/requests", params=params)).status_code == status


async def test_only_loopback_addresses_are_served() -> None:
    with pytest.raises(ValueError, match="loopback"):
        async with serve(ScriptedModel(), host="0.0.0.0"):
            pass


async def test_a_port_in_use_is_an_error(url: str) -> None:
    with pytest.raises(OSError, match="in use"):
        async with serve(ScriptedModel(), port=int(url.rpartition(":")[2])):
            pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_command_answers_until_a_signal_ends_it_cleanly(number: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from workers.demo_model.server import run_demo_model as run; run('127.0.0.1', 0, 1, 1)",
        cwd=REPOSITORY,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().split()[-1]
    async with anthropic.AsyncAnthropic(api_key="key", base_url=url, max_retries=0) as client:
        assert only_text(await stream(client))

    process.send_signal(number)

    assert await process.wait() == 0


async def test_the_demo_counts_a_prompt_as_it_bills_it() -> None:
    async with (
        serve_app(create_demo(), host="127.0.0.1", port=0) as url,
        anthropic.AsyncAnthropic(api_key="key", base_url=url, max_retries=0) as client,
    ):
        counted = await client.messages.count_tokens(
            model="claude-demo", system="Be brief.", messages=[{"role": "user", "content": "Hello"}]
        )
        answer = await client.messages.create(
            model="claude-demo",
            system="Be brief.",
            messages=[{"role": "user", "content": "Hello"}],
            max_tokens=50,
        )

    assert counted.input_tokens == answer.usage.input_tokens > 0
