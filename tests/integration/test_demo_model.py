"""The demo model as a client of the Messages API sees it: what it answers, what it refuses."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import anthropic
import httpx2
import pytest
from anthropic.types import Message, ToolParam, ToolResultBlockParam

from tests.fakes.scripted_model.app import MAX_BODY_BYTES
from tests.fakes.scripted_model.model import ScriptedModel
from tests.fakes.scripted_model.scripts import Script, ScriptedUsage, ToolCall
from tests.fakes.scripted_model.server import serve
from tests.fixtures.messages_client import ask, only_text, stream, user

TOOLS: list[ToolParam] = [
    {"name": "calculator", "input_schema": {"type": "object"}},
    {"name": "datetime", "input_schema": {"type": "object"}},
]


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


async def test_a_stream_names_its_events_as_the_messages_api_does(
    model: ScriptedModel, http: httpx2.AsyncClient
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
    model: ScriptedModel, client: anthropic.AsyncAnthropic
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
    model: ScriptedModel, client: anthropic.AsyncAnthropic
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
        "The demo model's tools say: 12 * 7 = 84; in Europe/Paris it is noon."
    )


async def test_without_a_script_it_says_that_it_is_a_demo(
    client: anthropic.AsyncAnthropic,
) -> None:
    assert "am not a language model" in only_text(await stream(client))


async def test_an_answer_stops_at_max_tokens(
    model: ScriptedModel, client: anthropic.AsyncAnthropic
) -> None:
    model.add(Script(text="abcd efgh ijkl", repeat=2))

    streamed, at_once = await stream(client, max_tokens=2), await ask(client, max_tokens=2)

    assert (only_text(streamed), streamed.stop_reason) == ("abcd efg", "max_tokens")
    assert (only_text(at_once), at_once.stop_reason) == ("abcd efg", "max_tokens")


async def test_a_tool_call_cut_at_max_tokens_has_no_input(
    model: ScriptedModel, client: anthropic.AsyncAnthropic
) -> None:
    model.add(Script(tool_calls=(ToolCall(name="clock", input={"zone": "UTC"}),)))

    (block,) = (await ask(client, max_tokens=1)).content

    assert block.type == "tool_use"
    assert block.input == {}


async def test_scripted_usage_reaches_the_client_and_the_log(
    model: ScriptedModel, client: anthropic.AsyncAnthropic
) -> None:
    usage = ScriptedUsage(
        input_tokens=7,
        output_tokens=8,
        cache_creation_input_tokens=9,
        cache_read_input_tokens=10,
    )
    model.add(Script(text="Hello", usage=usage))

    streamed = (await stream(client)).usage

    assert usage.model_dump().items() <= streamed.model_dump().items()
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
    model: ScriptedModel,
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


async def test_a_missing_key_is_refused(model: ScriptedModel, http: httpx2.AsyncClient) -> None:
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
    model: ScriptedModel, client: anthropic.AsyncAnthropic
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
