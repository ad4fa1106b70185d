"""The model gateway's requests against those of the official SDK, as a server receives them."""

import json
import subprocess
import sys
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

import anthropic
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from services.models.gateway import ModelGateway, ModelRequest
from services.models.request_bodies import StoredContent
from services.turns.structured_answers import constrained_schema
from tests.fakes.raw_server import answered, saying, serving_raw
from tests.fakes.scripted_model.raw_answers import message_end, message_start, text
from tests.fixtures.model_answers import streamed

FILE = b"\x89PNG" * 5_000
STORED = StoredContent.of(UUID(int=7), size=len(FILE), storage="postgres", variant="model")
WHOLE = answered(streamed(message_start(), *text("Hello"), *message_end()))
COUNT = answered(b'{"input_tokens": 12}')

PLAIN = ModelRequest(
    model="claude-haiku-5-5",
    system=[],
    messages=[{"role": "user", "content": "Hi"}],
    tools=[],
    max_tokens=100,
)
MANY: Final = {
    "plain": PLAIN,
    "the text of any language": replace(
        PLAIN,
        system=[
            {
                "type": "text",
                "text": '\u00e9\u2028\U0001f600\x00"\\/',
                "cache_control": {"type": "ephemeral"},
            }
        ],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "\ufeffHi\ud7ff"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "Hello"}]},
            {"role": "user", "content": "Again"},
        ],
    ),
    "tools and their results": replace(
        PLAIN,
        tools=[
            {
                "name": "calculator",
                "description": "Calculates.",
                "input_schema": {"type": "object", "properties": {"a": {"minimum": 1e-9}}},
            }
        ],
        messages=[
            {"role": "user", "content": "6 * 7"},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "t", "name": "calculator", "input": {}}],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t", "content": "42", "is_error": False}
                ],
            },
        ],
    ),
    "a budget of thinking": replace(
        PLAIN, max_tokens=9_000, thinking={"type": "enabled", "budget_tokens": 2_000}
    ),
    "adaptive thinking": replace(
        PLAIN, thinking={"type": "adaptive", "display": "summarized"}, output={"effort": "low"}
    ),
    "no thinking": replace(PLAIN, thinking={"type": "disabled"}),
    "a structured answer": replace(
        PLAIN,
        output={
            "format": {
                "type": "json_schema",
                "schema": {"type": "object", "properties": {}, "additionalProperties": False},
            }
        },
    ),
    "sampling and stop sequences": replace(
        PLAIN, sampling={"temperature": 0.5, "top_p": 1.0}, stop_sequences=("END", "\n\n")
    ),
    "a longer answer before a budget": replace(PLAIN, longest=5_000),
    "stored files": replace(
        PLAIN,
        messages=[
            {
                "role": "user",
                "content": [
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": STORED},
                    },
                    {"type": "text", "text": "What is this?"},
                ],
            },
        ],
    ),
}


@dataclass(frozen=True)
class Sent:
    """What a server received."""

    line: str
    headers: dict[str, str]
    body: Any

    @classmethod
    def read(cls, request: bytes) -> "Sent":
        head, _, body = request.partition(b"\r\n\r\n")
        line, *lines = head.decode().split("\r\n")
        pairs = [line.split(": ", 1) for line in lines]
        assert len({name.lower() for name, _ in pairs}) == len(pairs)
        headers = {name.lower(): value for name, value in pairs}
        del headers["host"]
        return cls(line, headers, json.loads(body))


async def read_file(_: StoredContent) -> AsyncIterator[bytes]:
    for start in range(0, len(FILE), 1_000):
        yield FILE[start : start + 1_000]


def with_file(request: ModelRequest) -> Any:  # noqa: ANN401 -- the SDK's own messages
    """Return the messages with a stored file's content, as the SDK takes it."""
    written = json.dumps(request.messages).replace(str(STORED), b64encode(FILE).decode())
    return json.loads(written)


async def by_the_sdk(url: str, request: ModelRequest, *, counting: bool) -> None:
    async with anthropic.AsyncAnthropic(
        api_key="key",
        base_url=url,
        max_retries=0,
        default_headers={"Accept-Encoding": "identity"},
    ) as client:
        prompt: dict[str, Any] = {
            "model": request.model,
            "system": request.system,
            "messages": with_file(request),
            "tools": request.tools or anthropic.omit,
            "thinking": request.thinking or anthropic.omit,
            "output_config": request.output or anthropic.omit,
        }
        if counting:
            await client.messages.count_tokens(**prompt)
            return
        async with client.messages.with_streaming_response.create(
            **prompt,
            max_tokens=request.max_tokens,
            stop_sequences=list(request.stop_sequences) or anthropic.omit,
            extra_body=dict(request.sampling) or None,
            stream=True,
        ) as response:
            await response.read()


async def by_the_gateway(url: str, request: ModelRequest, *, counting: bool) -> None:
    gateway = ModelGateway(
        api_key="key", base_url=url, idle_timeout_s=20, answer_timeout_s=20, connections=5
    )
    try:
        if counting:
            await gateway.count_tokens(request)
        else:
            assert [event async for event in gateway.stream(request)]
    finally:
        await gateway.close()


async def both(
    request: ModelRequest, *, counting: bool = False, path: str = ""
) -> tuple[Sent, Sent]:
    """Return what the SDK sends, and what the gateway sends."""
    async with serving_raw(saying(COUNT if counting else WHOLE)) as server:
        url = server.url.removesuffix("/") + path
        await by_the_sdk(url, request, counting=counting)
        await by_the_gateway(url, replace(request, read=read_file), counting=counting)
    expected, sent = map(Sent.read, server.requests)
    return expected, sent


def compared(sent: Sent) -> dict[str, str]:
    """Return the headers but those that only say which client sends, and how."""
    return {
        name: value
        for name, value in sent.headers.items()
        if not name.startswith("x-stainless-") and name not in {"user-agent", "content-length"}
    }


@pytest.mark.filterwarnings("ignore:Using Claude with:UserWarning")
@pytest.mark.parametrize("counting", [False, True], ids=["answer", "count"])
@pytest.mark.parametrize("request_", MANY.values(), ids=MANY)
async def test_a_request_is_the_one_that_the_sdk_sends(
    request_: ModelRequest, *, counting: bool
) -> None:
    expected, sent = await both(request_, counting=counting)

    assert sent.line == expected.line
    assert sent.body == expected.body
    assert compared(sent) == compared(expected)
    assert sent.headers["user-agent"] == "Everturn"


@pytest.mark.parametrize(
    "path", ["", "/", "/gateway", "/gateway/", "/gateway//", "/a%20b/%2F", "/?a=b"]
)
async def test_a_request_goes_where_the_sdk_sends_it(path: str) -> None:
    expected, sent = await both(PLAIN, path=path)

    assert sent.line == expected.line


@pytest.mark.parametrize(
    "given",
    [
        "X-Tenant: blue\nx-region :  eu ",
        "authorization: Basic eDp5\nAnthropic-Version: 2023-06-01",
        "no colon\nX-Many: a: b\n\nAccept-Encoding: gzip",
        "Anthropic-Beta: one,two\nX-Name: \u00e9",
    ],
)
async def test_headers_of_the_environment_are_sent_as_by_the_sdk(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", given)

    expected, sent = await both(PLAIN)

    assert compared(sent) == compared(expected)


async def test_a_request_goes_through_the_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving_raw(saying(WHOLE)) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "")
        for send in (by_the_sdk, by_the_gateway):
            await send("http://model.example:8080/v1beta", PLAIN, counting=False)

    expected, sent = map(Sent.read, proxy.requests)
    assert (
        sent.line == expected.line == "POST http://model.example:8080/v1beta/v1/messages HTTP/1.1"
    )
    assert compared(sent) == compared(expected)


async def test_a_host_that_the_proxy_is_not_for_is_asked_itself(
    monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{unused_tcp_port}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    expected, sent = await both(PLAIN)

    assert sent.line == expected.line


plain = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "a", "1.5"])
keywords = st.fixed_dictionaries(
    {},
    optional={
        "description": st.sampled_from(["", "What it is."]),
        "title": st.just("Title"),
        "default": plain,
        "minimum": st.integers(0, 3),
        "minItems": st.integers(0, 3),
        "minLength": st.integers(0, 3),
        "format": st.sampled_from(["", "date", "email", "regex", "idn-email"]),
        "additionalProperties": st.booleans(),
        "required": st.just(["a"]),
    },
)
values = st.fixed_dictionaries(
    {}, optional={"enum": st.lists(plain | st.just({"a": 1}), max_size=3), "const": plain}
)
references = st.just({"$ref": "#/$defs/a"})
kinds = st.sampled_from(
    [*("string", "array") * 3, "integer", "number", "boolean", "null", "decimal"]
).map(lambda kind: {"type": kind})


def grown(parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    named = st.dictionaries(st.sampled_from(["a", "b"]), parts, min_size=1)
    listed = st.lists(parts, max_size=2)
    within = st.fixed_dictionaries(
        {}, optional={"items": parts, "anyOf": listed, "oneOf": listed, "$defs": named}
    )
    objects = st.fixed_dictionaries({"type": st.just("object"), "properties": named})
    return st.tuples(keywords, within, kinds | objects | values).map(
        lambda drawn: {**drawn[0], **drawn[1], **drawn[2]}
    )


schemas = st.recursive(
    st.tuples(keywords, kinds | kinds | values | references).map(
        lambda drawn: {**drawn[0], **drawn[1]}
    ),
    grown,
    max_leaves=4,
)


@seed(1)
@settings(database=None, deadline=None, max_examples=300)
@given(schema=schemas)
def test_a_schema_is_changed_as_by_the_sdk(schema: dict[str, Any]) -> None:
    before = json.dumps(schema)
    try:
        expected = anthropic.transform_schema(schema)
    except (AssertionError, ValueError):
        expected = None

    assert json.dumps(constrained_schema(schema)) == json.dumps(expected)
    assert json.dumps(schema) == before


def test_no_process_loads_the_sdk() -> None:
    code = (
        "import sys, workers.api_process, workers.worker_process, workers.composition.activities\n"
        "print('anthropic' in sys.modules)"
    )

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ended.stdout == "False\n"
