"""Web searches at a scripted engine on loopback: requests, and the meaning of its answers."""

import json
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import JsonValue
from structlog.testing import capture_logs

from services.tools.definition import ToolOutcome, ToolUnavailableError
from tests.fakes.raw_server import Answer, RawServer, answered, saying, serving_raw
from tests.fixtures.stack import Stack
from tests.fixtures.tool_executions import an_execution
from tests.fixtures.web_search import FINE, MakeTool, hanging_up, making_tools


@pytest.fixture
async def make_tool(stack: Stack) -> AsyncIterator[MakeTool]:
    async with making_tools(stack) as make:
        yield make


async def searched(make_tool: MakeTool, answer: Answer, **tool_input: JsonValue) -> ToolOutcome:
    async with serving_raw(answer) as engine:
        return await make_tool(engine.url).run({"query": "x", **tool_input}, an_execution())


async def unavailable(make_tool: MakeTool, answer: Answer) -> ToolUnavailableError:
    with pytest.raises(ToolUnavailableError) as raised:
        await searched(make_tool, answer)
    return raised.value


def asked_of(engine: RawServer) -> tuple[str, dict[str, list[str]], str]:
    """Return path, parameters and head of the one request that an engine got."""
    (request,) = engine.requests
    head = request.decode()
    parts = urlsplit(head.split(" ")[1])
    return parts.path, parse_qs(parts.query, strict_parsing=True), head.lower()


async def test_a_search_sends_its_parameters_to_the_engine(make_tool: MakeTool) -> None:
    async with serving_raw(FINE) as engine:
        await make_tool(engine.url).run(
            {
                "query": " köln\n& dom=1\x00 #?",
                "count": 3,
                "freshness": "week",
                "country": "uk",
            },
            an_execution(),
        )

    path, parameters, head = asked_of(engine)
    assert path == "/res/v1/web/search"
    assert parameters == {
        "q": ["köln & dom=1 #?"],
        "count": ["3"],
        "country": ["GB"],
        "freshness": ["pw"],
        "safesearch": ["strict"],
        "text_decorations": ["false"],
        "result_filter": ["web"],
    }
    assert "x-subscription-token: hush\r\n" in head


async def test_results_are_plain_text_and_as_many_as_requested(make_tool: MakeTool) -> None:
    outcome = await searched(make_tool, FINE, count=2)

    results = json.loads(outcome.output)["results"]
    assert not outcome.is_error
    assert results == [
        {
            "title": f"Page {number}",
            "url": f"https://example.com/{number}",
            "snippet": "Tom & Jerry",
            "age": "3 days ago",
        }
        for number in range(2)
    ]


async def test_no_results_are_explained(make_tool: MakeTool) -> None:
    outcome = await searched(make_tool, saying(answered(b'{"type":"search"}')))

    assert (outcome.output, outcome.is_error) == ("No results.", False)


async def test_an_unsupported_country_is_reported(make_tool: MakeTool) -> None:
    async with serving_raw(FINE) as engine:
        outcome = await make_tool(engine.url).run({"query": "x", "country": "XX"}, an_execution())

    assert asked_of(engine)[1]["country"] == ["ALL"]
    assert "XX" in json.loads(outcome.output)["note"]


@pytest.mark.parametrize("query", ["\x00", "\x01 \x7f", " ".join(["word"] * 51)])
async def test_an_invalid_query_is_not_sent(query: str, make_tool: MakeTool) -> None:
    async with serving_raw(FINE) as engine:
        outcome = await make_tool(engine.url).run({"query": query}, an_execution())

    assert outcome.is_error
    assert engine.accepted == 0


@pytest.mark.parametrize("status", ["401 U", "403 F", "302 Found"])
async def test_a_rejected_key_is_a_misconfiguration(status: str, make_tool: MakeTool) -> None:
    with capture_logs() as logs:
        outcome = await searched(make_tool, saying(answered(b"{}", "Location: /", status=status)))

    assert outcome.is_error
    assert "misconfigured" in outcome.output
    assert outcome.cost_usd == 0
    assert {"event": "web_search_not_configured", "log_level": "error"} in logs
    assert "hush" not in f"{logs} {outcome}"


async def test_an_unknown_key_is_a_misconfiguration(make_tool: MakeTool) -> None:
    body = {"type": "ErrorResponse", "error": {"code": "SUBSCRIPTION_TOKEN_INVALID"}}
    wire = answered(json.dumps(body).encode(), status="422 Unprocessable")

    assert "misconfigured" in (await searched(make_tool, saying(wire))).output


@pytest.mark.parametrize("body", [b"", b"[]", b'{"error":{"code":"VALIDATION"}}', b'{"error":7}'])
async def test_a_rejected_query_can_be_rephrased(body: bytes, make_tool: MakeTool) -> None:
    outcome = await searched(make_tool, saying(answered(body, status="422 Unprocessable")))

    assert outcome.is_error
    assert "Rephrase" in outcome.output


@pytest.mark.parametrize(
    ("status", "headers", "retry_after_s"),
    [
        ("429 T", [], None),
        ("429 T", ["Retry-After: 7"], 7),
        ("429 T", ["X-RateLimit-Remaining: 0, 900", "X-RateLimit-Reset: 1, 1419704"], 1),
        ("429 T", ["X-RateLimit-Remaining: x", "X-RateLimit-Reset: nan"], None),
        ("429 T", ["Retry-After: -1"], None),
        ("503 S", ["Retry-After: 100000"], 60),
        ("500 I", [], None),
    ],
)
async def test_a_busy_engine_is_retried(
    status: str, headers: list[str], retry_after_s: float | None, make_tool: MakeTool
) -> None:
    error = await unavailable(make_tool, saying(answered(b"{}", *headers, status=status)))

    waits = None if error.retry_after is None else error.retry_after.total_seconds()
    assert (error.reached, waits) == (True, retry_after_s)


async def test_an_exhausted_monthly_quota_is_not_retried(make_tool: MakeTool) -> None:
    headers = ("X-RateLimit-Remaining: 0, 0", "X-RateLimit-Reset: 1, 1419704")
    outcome = await searched(make_tool, saying(answered(b"{}", *headers, status="429 T")))

    assert outcome.is_error
    assert "web search quota" in outcome.output


@pytest.mark.parametrize(
    "answer",
    [
        hanging_up,
        saying(answered(b"<html>sign in</html>")),
        saying(answered(b"x" * 3 * 1024 * 1024)),
        saying(answered(b"{", "Content-Encoding: gzip")),
    ],
)
async def test_an_invalid_answer_is_retried(answer: Answer, make_tool: MakeTool) -> None:
    error = await unavailable(make_tool, answer)

    assert error.reached
    assert "sign in" not in str(error)


async def test_a_refused_connection_is_retried(make_tool: MakeTool, unused_tcp_port: int) -> None:
    tool = make_tool(f"http://127.0.0.1:{unused_tcp_port}")
    with pytest.raises(ToolUnavailableError) as raised:
        await tool.run({"query": "x"}, an_execution())

    assert not raised.value.reached


async def test_an_engine_at_a_private_address_is_not_called(make_tool: MakeTool) -> None:
    async with serving_raw(FINE) as engine:
        tool = make_tool(f"http://localhost:{engine.port}")
        outcome = await tool.run({"query": "x"}, an_execution())

    assert "misconfigured" in outcome.output
    assert engine.accepted == 0
