"""The demo model as a client of the Messages API sees it, over a real socket."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from pathlib import Path

import anthropic
import httpx2
import pytest
from anthropic.types import Message, MessageParam, ToolParam, ToolResultBlockParam

from workers.demo_model.app import MAX_BODY_BYTES
from workers.demo_model.model import DemoModel
from workers.demo_model.request_log import RequestRecord
from workers.demo_model.scripts import Script, ScriptedUsage, ToolCall
from workers.demo_model.server import serve

REPOSITORY = Path(__file__).parents[2]
TOOLS: list[ToolParam] = [
    {"name": "calculator", "input_schema": {"type": "object"}},
    {"name": "datetime", "input_schema": {"type": "object"}},
]
FOREVER_S = 3600.0


@pytest.fixture(scope="module")
def model() -> DemoModel:
    return DemoModel()


@pytest.fixture(scope="module")
async def url(model: DemoModel) -> AsyncIterator[str]:
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
def no_script_is_left(model: DemoModel) -> Iterator[None]:
    yield
    model.clear_scripts()


def user(text: str) -> list[MessageParam]:
    return [{"role": "user", "content": text}]


async def ask(
    client: anthropic.AsyncAnthropic,
    text: str = "Hello",
    *,
    model: str = "claude-demo",
    max_tokens: int = 1000,
) -> Message:
    return await client.messages.create(model=model, max_tokens=max_tokens, messages=user(text))


async def stream(
    client: anthropic.AsyncAnthropic,
    text: str = "Hello",
    *,
    pieces: list[str] | None = None,
    max_tokens: int = 1000,
    messages: list[MessageParam] | None = None,
    tools: Iterable[ToolParam] = (),
) -> Message:
    """Return the whole message; each text delta is added to `pieces` as it comes."""
    request = client.messages.stream(
        model="claude-demo",
        max_tokens=max_tokens,
        messages=messages or user(text),
        tools=tools,
    )
    seen = [] if pieces is None else pieces
    async with request as events:
        async for piece in events.text_stream:
            seen.append(piece)
        return await events.get_final_message()


async def leave(
    model: DemoModel, asking: asyncio.Task[Message], until: Callable[[RequestRecord], bool]
) -> RequestRecord:
    """Cancel the request once its record is as wanted; return the record when it has ended."""
    seen = len(model.requests)
    await model.wait_until(lambda: len(model.requests) > seen and until(model.requests[seen]))
    asking.cancel()
    record = model.requests[seen]
    await model.wait_until(lambda: record.ended)
    return record


def only_text(message: Message) -> str:
    (block,) = message.content
    assert block.type == "text"
    return block.text


async def test_a_stream_names_its_events_as_the_messages_api_does(
    model: DemoModel, http: httpx2.AsyncClient
) -> None:
    model.add(Script(pieces=("Hel", "lo")))

    response = await http.post(
        "/v1/messages",
        headers={"x-api-key": "key"},
        json={
            "model": "claude-demo",
            "max_tokens": 9,
            "stream": True,
            "messages": [{"role": "user", "content": "Hi"}],
        },
    )

    names = [line[7:] for line in response.text.splitlines() if line.startswith("event: ")]
    assert names == [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["request-id"] == model.requests[-1].request_id


async def test_every_kind_of_block_arrives_streamed_and_not(
    model: DemoModel, client: anthropic.AsyncAnthropic
) -> None:
    call = ToolCall(name="clock", input={"zone": "Europe/Zürich", "n": [1, 2]}, id="toolu_1")
    model.add(Script(repeat=2, thinking="Hm, so.", text="One “moment”.\n", tool_calls=(call,)))

    streamed, at_once = await stream(client), await ask(client)

    for message in (streamed, at_once):
        thinking, text, tool_use = message.content
        assert thinking.type == "thinking"
        assert thinking.thinking == "Hm, so."
        assert text.type == "text"
        assert text.text == "One “moment”.\n"
        assert tool_use.type == "tool_use"
        assert (tool_use.id, tool_use.name) == ("toolu_1", "clock")
        assert tool_use.input == {"zone": "Europe/Zürich", "n": [1, 2]}
        assert message.stop_reason == "tool_use"
    assert streamed.usage.output_tokens == at_once.usage.output_tokens


async def test_deltas_are_the_scripted_pieces(
    model: DemoModel, client: anthropic.AsyncAnthropic
) -> None:
    model.add(Script(pieces=("a", "bc", " ", "d"), delay_to_first_s=0.001, delay_between_s=0.001))
    pieces: list[str] = []

    await stream(client, pieces=pieces)

    assert pieces == ["a", "bc", " ", "d"]
    assert model.requests[-1].deltas_sent == 4
    assert model.requests[-1].finished


async def test_a_tool_is_called_and_its_result_answered(client: anthropic.AsyncAnthropic) -> None:
    question = "What is 12 * 7, and what time is it in Paris?"

    called = await stream(client, question, tools=TOOLS)
    results: list[ToolResultBlockParam] = [
        {"type": "tool_result", "tool_use_id": block.id, "content": output}
        for block, output in zip(called.content, ("84", "noon"), strict=True)
        if block.type == "tool_use"
    ]
    answered = await stream(
        client,
        tools=TOOLS,
        messages=[*user(question), called.to_param(), {"role": "user", "content": results}],
    )

    assert called.stop_reason == "tool_use"
    assert only_text(answered) == (
        "By its tools the demo model knows: 12 * 7 = 84; in Europe/Paris it is noon."
    )


async def test_without_a_script_it_says_that_it_is_a_demo(
    client: anthropic.AsyncAnthropic,
) -> None:
    assert "am no language model" in only_text(await stream(client))


async def test_an_answer_stops_at_max_tokens(
    model: DemoModel, client: anthropic.AsyncAnthropic
) -> None:
    model.add(Script(text="abcd efgh ijkl", repeat=2))

    streamed, at_once = await stream(client, max_tokens=2), await ask(client, max_tokens=2)

    assert (only_text(streamed), streamed.stop_reason) == ("abcd efg", "max_tokens")
    assert (only_text(at_once), at_once.stop_reason) == ("abcd efg", "max_tokens")


async def test_a_tool_call_cut_at_max_tokens_has_no_input(
    model: DemoModel, client: anthropic.AsyncAnthropic
) -> None:
    model.add(Script(tool_calls=(ToolCall(name="clock", input={"zone": "UTC"}),)))

    (block,) = (await ask(client, max_tokens=1)).content

    assert block.type == "tool_use"
    assert block.input == {}


async def test_scripted_usage_reaches_the_client_and_the_log(
    model: DemoModel, client: anthropic.AsyncAnthropic
) -> None:
    usage = ScriptedUsage(
        input_tokens=7,
        output_tokens=8,
        cache_creation_input_tokens=9,
        cache_read_input_tokens=10,
    )
    model.add(Script(text="Hello", usage=usage))

    told = (await stream(client)).usage

    assert usage.model_dump().items() <= told.model_dump().items()
    assert model.requests[-1].usage.as_json() == usage.model_dump()


async def test_counting_tokens_agrees_with_the_usage(client: anthropic.AsyncAnthropic) -> None:
    counted = await client.messages.count_tokens(model="claude-demo", messages=user("Hello, you"))

    answered = await ask(client, "Hello, you")

    assert counted.input_tokens == answered.usage.input_tokens


async def test_models_are_listed(client: anthropic.AsyncAnthropic) -> None:
    names = [info.id async for info in client.models.list()]

    assert "claude-haiku-5-5" in names


@pytest.mark.parametrize("send", [ask, stream])
@pytest.mark.parametrize(
    ("status", "error_class", "error_type"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (401, anthropic.AuthenticationError, "authentication_error"),
        (403, anthropic.PermissionDeniedError, "permission_error"),
        (404, anthropic.NotFoundError, "not_found_error"),
        (413, anthropic.RequestTooLargeError, "request_too_large"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (500, anthropic.InternalServerError, "api_error"),
        (529, anthropic.OverloadedError, "overloaded_error"),
    ],
)
async def test_a_scripted_status_is_the_clients_error(
    model: DemoModel,
    client: anthropic.AsyncAnthropic,
    send: Callable[[anthropic.AsyncAnthropic], Awaitable[Message]],
    *,
    status: int,
    error_class: type[anthropic.APIStatusError],
    error_type: str,
) -> None:
    model.add(Script(status=status, message="No.", retry_after=3))

    with pytest.raises(error_class) as caught:
        await send(client)

    error, record = caught.value, model.requests[-1]
    assert (error.type, error.api_message) == (error_type, "No.")
    assert error.response.headers["retry-after"] == "3"
    assert error.request_id == record.request_id
    assert (record.status, record.finished, record.usage.input_tokens) == (status, False, 0)


async def test_a_missing_key_is_refused(model: DemoModel, http: httpx2.AsyncClient) -> None:
    responses = [
        await http.post("/v1/messages", json={}),
        await http.post("/v1/messages/count_tokens", json={}),
        await http.get("/v1/models"),
    ]

    assert [response.status_code for response in responses] == [401, 401, 401]
    assert responses[0].json() == {
        "type": "error",
        "error": {"type": "authentication_error", "message": "x-api-key header is required"},
        "request_id": model.requests[-1].request_id,
    }


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"{}"])
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
async def test_a_malformed_body_is_refused(
    http: httpx2.AsyncClient, content: bytes, path: str
) -> None:
    response = await http.post(path, headers={"authorization": "Bearer key"}, content=content)

    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


async def test_an_invalid_request_uses_up_no_script(
    model: DemoModel, client: anthropic.AsyncAnthropic
) -> None:
    model.add(Script(text="Hello"))

    with pytest.raises(anthropic.BadRequestError, match="non-empty"):
        await ask(client, " ")

    assert model.unused_scripts == 1
    assert model.requests[-1].status == 400


async def test_an_unknown_model_is_not_found(client: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="model: gpt-5"):
        await ask(client, model="gpt-5")


async def test_a_body_beyond_the_limit_is_refused(client: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.RequestTooLargeError):
        await ask(client, "x" * MAX_BODY_BYTES)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/messages", 405), ("GET", "/v1/nothing", 404)]
)
async def test_an_unknown_endpoint_is_an_error_of_the_same_shape(
    http: httpx2.AsyncClient, method: str, path: str, status: int
) -> None:
    response = await http.request(method, path)

    assert (response.status_code, response.json()["type"]) == (status, "error")


@pytest.mark.parametrize("count", [0, 2, 9])
async def test_a_broken_stream_ends_in_the_middle_of_a_chunk(
    model: DemoModel,
    client: anthropic.AsyncAnthropic,
    caplog: pytest.LogCaptureFixture,
    count: int,
) -> None:
    model.add(Script(pieces=("a", "b", "c"), break_after=count))
    pieces: list[str] = []

    with pytest.raises(httpx2.RemoteProtocolError, match="incomplete chunked read"):
        await stream(client, pieces=pieces)

    record = model.requests[-1]
    assert pieces == ["a", "b", "c"][:count]
    assert record.deltas_sent == len(pieces)
    assert (record.finished, record.disconnected_at) == (False, None)
    assert [log for log in caplog.records if log.name == "uvicorn.error"] == []


async def test_an_unstreamed_answer_breaks_before_it_begins(
    model: DemoModel, client: anthropic.AsyncAnthropic
) -> None:
    model.add(Script(text="Hello", break_after=1))

    with pytest.raises(anthropic.APIConnectionError):
        await ask(client)


async def test_an_error_in_mid_stream_names_its_type(
    model: DemoModel, client: anthropic.AsyncAnthropic
) -> None:
    model.add(Script(pieces=("a", "b"), error_after=1))
    pieces: list[str] = []

    with pytest.raises(anthropic.APIStatusError) as caught:
        await stream(client, pieces=pieces)

    assert pieces == ["a"]
    assert (caught.value.type, caught.value.status_code) == ("overloaded_error", 200)
    assert model.requests[-1].ended
    assert not model.requests[-1].finished


async def test_an_error_in_an_unstreamed_answer_is_its_status(
    model: DemoModel, client: anthropic.AsyncAnthropic
) -> None:
    model.add(Script(text="Hello", error_after=1))

    with pytest.raises(anthropic.OverloadedError):
        await ask(client)


async def test_a_client_that_leaves_a_stalled_stream_is_noticed(
    model: DemoModel, client: anthropic.AsyncAnthropic
) -> None:
    model.add(Script(pieces=("12345678", "9"), stall_after=1))
    asking = asyncio.create_task(stream(client, "Hello, you"))

    record = await leave(model, asking, lambda record: record.deltas_sent == 1)

    assert record.disconnected_at is not None
    assert not record.finished
    assert (record.usage.input_tokens, record.usage.output_tokens) == (3, 2)


async def test_a_client_that_leaves_before_the_first_token_is_billed_nothing(
    model: DemoModel, client: anthropic.AsyncAnthropic
) -> None:
    model.add(Script(text="Hello", delay_to_first_s=FOREVER_S))
    asking = asyncio.create_task(stream(client))

    record = await leave(model, asking, lambda _: True)

    assert record.disconnected_at is not None
    assert (record.status, record.usage.input_tokens) == (None, 0)


async def test_a_client_that_leaves_between_two_deltas_is_noticed(
    model: DemoModel, client: anthropic.AsyncAnthropic
) -> None:
    model.add(Script(pieces=("a", "b"), delay_between_s=FOREVER_S))
    asking = asyncio.create_task(stream(client))

    record = await leave(model, asking, lambda record: record.deltas_sent == 1)

    assert record.disconnected_at is not None


async def test_a_client_that_leaves_a_held_stream_is_noticed(
    model: DemoModel, client: anthropic.AsyncAnthropic
) -> None:
    model.add(Script(text="Hello", hold="never opened"))
    asking = asyncio.create_task(stream(client))

    record = await leave(model, asking, lambda record: record.status == 200)

    assert record.disconnected_at is not None
    assert record.deltas_sent == 0


async def test_a_held_stream_goes_on_when_it_is_released(
    model: DemoModel, client: anthropic.AsyncAnthropic
) -> None:
    model.add(Script(match="wait for me", pieces=("a", "b", "c"), hold="gate", hold_after=2))
    asking = asyncio.create_task(stream(client, "Please wait for me"))
    held = await model.wait_for_request(match="wait for me")
    await model.wait_until(lambda: held.deltas_sent == 2)

    others = await ask(client, "I do not wait")
    model.release("gate")

    assert only_text(others)
    assert only_text(await asking) == "abc"
    assert held.finished


async def test_concurrent_requests_get_the_scripts_that_match_them(
    model: DemoModel, client: anthropic.AsyncAnthropic
) -> None:
    numbers = range(8)
    for number in reversed(numbers):
        model.add(Script(match=f"number {number}", text=f"answer {number}"))

    answers = await asyncio.gather(*(stream(client, f"number {number}") for number in numbers))

    assert [only_text(answer) for answer in answers] == [f"answer {number}" for number in numbers]


async def test_waiting_for_a_request_that_does_not_come_times_out(model: DemoModel) -> None:
    with pytest.raises(TimeoutError):
        await model.wait_for_request(timeout_s=0.001, match="nobody says this")


async def test_joined_events_are_the_same_answer() -> None:
    model = DemoModel(join_events=True)
    model.add(Script(pieces=("a", "b", "c"), thinking="Hm."))
    async with (
        serve(model) as url,
        anthropic.AsyncAnthropic(api_key="key", base_url=url, max_retries=0) as client,
    ):
        pieces: list[str] = []
        await stream(client, pieces=pieces)

    assert pieces == ["a", "b", "c"]


async def test_closing_the_server_ends_its_streams() -> None:
    model = DemoModel()
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
    model: DemoModel, client: anthropic.AsyncAnthropic, http: httpx2.AsyncClient
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
    model: DemoModel, http: httpx2.AsyncClient
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
        async with serve(DemoModel(), host="0.0.0.0"):
            pass


async def test_a_port_in_use_is_an_error(url: str) -> None:
    with pytest.raises(OSError, match="in use"):
        async with serve(DemoModel(), port=int(url.rpartition(":")[2])):
            pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_command_answers_until_a_signal_ends_it_cleanly(number: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from workers.demo_model.command import run_demo_model as run; run('127.0.0.1', 0, 1, 1)",
        cwd=REPOSITORY,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().split()[-1]
    async with anthropic.AsyncAnthropic(api_key="key", base_url=url, max_retries=0) as client:
        assert only_text(await stream(client))

    process.send_signal(number)

    assert await process.wait() == 0
