"""Which requests the demo model refuses, and how it says so."""

import pytest

from tests.fakes.scripted_model.validation import find_refusal
from workers.demo_model.prompt import JsonObject
from workers.demo_model.wire import Refusal

CALL = {"type": "tool_use", "id": "toolu_1", "name": "clock", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "noon"}
TEXT = {"type": "text", "text": "Hello"}


def request(**changes: object) -> JsonObject:
    """Return a valid request with these fields changed; None takes a field away."""
    body = {"model": "claude-demo", "max_tokens": 10, "messages": [user("Hello")], **changes}
    return {name: value for name, value in body.items() if value is not None}


def with_schema(**schema: object) -> JsonObject:
    return request(tools=[{"name": "clock", "input_schema": {"type": "object", **schema}}])


def user(content: object) -> JsonObject:
    return {"role": "user", "content": content}


def assistant(content: object) -> JsonObject:
    return {"role": "assistant", "content": content}


@pytest.mark.parametrize(
    "body",
    [
        request(),
        request(system="Be kind.", tools=[]),
        request(system=[TEXT], tools=[{"name": "clock", "input_schema": {"type": "object"}}]),
        request(tools=[{"type": "web_search_20250305", "name": "web_search"}]),
        request(messages=[user([TEXT]), assistant([TEXT, CALL]), user([RESULT, TEXT])]),
        request(messages=[user("a"), assistant([CALL]), user([RESULT]), user("b")]),
        request(messages=[user("a"), assistant([CALL]), user([RESULT | {"content": [TEXT]}])]),
        request(messages=[user([{"type": "image", "source": {}}])]),
        request(thinking={"type": "adaptive"}, output_config={"effort": "high"}),
        request(thinking={"type": "adaptive", "display": "summarized"}, output_config={}),
        request(thinking={"type": "disabled"}),
    ],
)
def test_a_valid_request_is_not_refused(body: JsonObject) -> None:
    assert None is find_refusal(body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "The request body is not a JSON object."),
        (request(model=None), "model: Field required"),
        (request(model=3), "model: Input should be a valid string"),
        (request(max_tokens=None), "max_tokens: Field required"),
        (request(max_tokens=0), "max_tokens: Input should be"),
        (request(max_tokens=True), "max_tokens: Input should be"),
        (request(messages=None), "messages: Field required"),
        (request(messages="Hello"), "messages: Input should be a valid list"),
        (request(messages=[]), "messages: at least one message is required"),
        (request(messages=[{"role": "system", "content": "x"}]), "messages.0.role: "),
        (request(messages=["Hello"]), "messages.0.role: "),
        (request(messages=[{"role": "user"}]), "messages.0.content: Field required"),
        (request(messages=[user(" ")]), "messages.0: all messages must have non-empty content"),
        (request(messages=[user([])]), "messages.0: all messages must have non-empty content"),
        (request(messages=[user([{"type": "text", "text": ""}])]), "messages.0.content.0: text"),
        (request(messages=[user([{"type": "text"}])]), "messages.0.content.0.text: Field"),
        (request(messages=[user(["Hello"])]), "messages.0.content.0.type: Field required"),
        (request(messages=[assistant("Hello")]), "messages: first message must use"),
        (request(system=3), "system: Input should be"),
        (request(system=[{"type": "text", "text": ""}]), "system.0: text content blocks"),
        (
            request(thinking={"type": "enabled", "budget_tokens": 1024}),
            '"thinking.type.enabled" is',
        ),
        (request(thinking={"type": "much"}), "thinking.type: Input should be"),
        (request(thinking=True), "thinking.type: Input should be"),
        (request(thinking={"type": "adaptive", "display": 1}), "thinking.adaptive.display: "),
        (request(output_config={"effort": "all"}), "output_config.effort: Input should be one of"),
        (request(output_config=3), "output_config: Input should be"),
        (request(tools={}), "tools: Input should be a valid list"),
        (request(tools=[{}]), "tools.0.name: Field required"),
        (request(tools=[{"name": "a b"}]), "tools.0.name: String should match"),
        (request(tools=[{"name": "clock"}]), "tools.0.custom.input_schema.type: Input should be"),
        (
            with_schema(anyOf=[{"required": ["a"]}]),
            "tools.0.custom.input_schema: input_schema does",
        ),
        (
            with_schema(properties={"$top": {}}),
            "tools.0.custom.input_schema.properties: Property keys should match pattern",
        ),
        (
            with_schema(properties={"a": {"items": {"properties": {"b c": {}}}}}),
            "tools.0.custom.input_schema.properties: Property keys should match pattern",
        ),
        (
            with_schema(properties={"a": {"exclusiveMinimum": True}}),
            "tools.0.custom.input_schema: JSON schema is invalid.",
        ),
        (
            request(tools=[{"name": "clock", "input_schema": {"type": "object"}}] * 2),
            "tools: Tool names must be unique.",
        ),
        (
            request(system=[TEXT | {"cache_control": {"type": "ephemeral"}}] * 5),
            "A maximum of 4 blocks with cache_control may be provided. Found 5.",
        ),
    ],
)
def test_a_malformed_request_is_refused_by_name(body: object, message: str) -> None:
    refusal = find_refusal(body)

    assert refusal is not None
    assert (refusal.status, refusal.error_type) == (400, "invalid_request_error")
    assert refusal.message.startswith(message)


@pytest.mark.parametrize(
    "messages",
    [
        [user("a"), assistant([CALL])],
        [user("a"), assistant([CALL]), user("b")],
        [user("a"), assistant([CALL]), user([TEXT, RESULT])],
        [user("a"), assistant([CALL, CALL | {"id": "toolu_2"}]), user([RESULT])],
    ],
)
def test_a_tool_call_without_its_result_is_refused(messages: list[JsonObject]) -> None:
    refusal = find_refusal(request(messages=messages))

    assert refusal is not None
    assert "without `tool_result` blocks immediately after: toolu_" in refusal.message


@pytest.mark.parametrize(
    "messages",
    [
        [user([RESULT])],
        [user("a"), assistant([CALL]), user([RESULT]), assistant("b"), user([RESULT])],
    ],
)
def test_a_result_of_no_call_is_refused(messages: list[JsonObject]) -> None:
    refusal = find_refusal(request(messages=messages))

    assert refusal is not None
    assert "unexpected `tool_use_id` found in `tool_result` blocks" in refusal.message


def test_a_result_with_non_text_content_is_rejected() -> None:
    messages = [user("a"), assistant([CALL]), user([RESULT | {"content": 3}])]

    refusal = find_refusal(request(messages=messages))

    assert refusal == Refusal(
        400, "messages.2.content.0.content: Input should be a valid string or list"
    )


def test_an_unknown_model_is_not_found() -> None:
    refusal = find_refusal(request(model="gpt-5"))

    assert refusal is not None
    assert (refusal.status, refusal.error_type) == (404, "not_found_error")


def test_counting_tokens_needs_no_limit() -> None:
    assert None is find_refusal(request(max_tokens=None), needs_max_tokens=False)


@pytest.mark.parametrize(("seconds", "header"), [(3, "3"), (3.0, "3"), (0.5, "0.5")])
def test_retry_after_is_written_as_seconds(seconds: float, header: str) -> None:
    assert {"retry-after": header} == Refusal(429, "Slow down", retry_after_s=seconds).headers


@pytest.mark.parametrize(
    ("status", "name"),
    [(418, "invalid_request_error"), (503, "api_error"), (529, "overloaded_error")],
)
def test_every_status_has_an_error_type(status: int, name: str) -> None:
    assert name == Refusal(status, "").as_json("req_1")["error"]["type"]
