"""Searching the web at a scripted engine on loopback, by real wire, within plans' quotas."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest
from pydantic import JsonValue
from structlog.testing import capture_logs

from schema.actors import acting_user
from schema.ids import TurnId, UserId, new_id
from services.outgoing.client import OutgoingClient
from services.tools.definition import ToolExecution, ToolOutcome, ToolUnavailableError
from services.tools.ledger import ChargeStatus, ToolLedger
from services.tools.web_search.brave import BraveSearch
from services.tools.web_search.quota import MODEL, SearchQuota
from services.tools.web_search.tool import WebSearch
from tests.fakes.raw_server import Answer, RawServer, answered, saying, serving_raw
from tests.fixtures.api_user import ApiUser
from tests.fixtures.plans import give_plan, make_plan
from tests.fixtures.stack import Stack
from tests.fixtures.tool_executions import an_execution

COST = Decimal("0.005")
FOUND = {
    "type": "search",
    "web": {
        "results": [
            {
                "title": f"Page <strong>{number}</strong>",
                "url": f"https://example.com/{number}",
                "description": "Tom &amp; Jerry",
                "age": "3 days ago",
            }
            for number in range(20)
        ]
    },
}
FINE = saying(answered(json.dumps(FOUND).encode(), "Content-Type: application/json"))

MakeTool = Callable[[str], WebSearch]


@pytest.fixture
async def outgoing() -> AsyncIterator[OutgoingClient]:
    async with OutgoingClient(allowed_hosts=["127.0.0.1"]) as client:
        yield client


@pytest.fixture
def make_tool(outgoing: OutgoingClient, stack: Stack) -> MakeTool:
    """Return what makes the tool for an engine at an address."""

    def make(url: str) -> WebSearch:
        engine = BraveSearch(outgoing, api_key=" hush ", base_url=url, safe="strict")
        database = stack.foundation.database
        return WebSearch(engine, SearchQuota(database, ToolLedger(database)), cost_usd=COST)

    return make


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


async def test_a_search_asks_for_what_was_asked(make_tool: MakeTool) -> None:
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


async def test_results_are_plain_and_as_many_as_asked_for(make_tool: MakeTool) -> None:
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


async def test_no_result_is_said_in_words(make_tool: MakeTool) -> None:
    outcome = await searched(make_tool, saying(answered(b'{"type":"search"}')))

    assert (outcome.output, outcome.is_error) == ("The search found nothing.", False)


async def test_a_country_that_the_engine_does_not_know_is_said(make_tool: MakeTool) -> None:
    async with serving_raw(FINE) as engine:
        outcome = await make_tool(engine.url).run({"query": "x", "country": "XX"}, an_execution())

    assert asked_of(engine)[1]["country"] == ["ALL"]
    assert "XX" in json.loads(outcome.output)["note"]


@pytest.mark.parametrize("query", ["\x00", "\x01 \x7f", " ".join(["word"] * 51)])
async def test_a_query_that_the_engine_would_not_take_is_not_sent(
    query: str, make_tool: MakeTool
) -> None:
    async with serving_raw(FINE) as engine:
        outcome = await make_tool(engine.url).run({"query": query}, an_execution())

    assert outcome.is_error
    assert engine.accepted == 0


@pytest.mark.parametrize("status", ["401 U", "403 F", "302 Found"])
async def test_a_key_that_is_refused_is_an_operators_matter(
    status: str, make_tool: MakeTool
) -> None:
    with capture_logs() as logs:
        outcome = await searched(make_tool, saying(answered(b"{}", "Location: /", status=status)))

    assert outcome.is_error
    assert "not set up" in outcome.output
    assert outcome.cost_usd == 0
    assert {"event": "web_search_not_set_up", "log_level": "error"} in logs
    assert "hush" not in f"{logs} {outcome}"


async def test_a_key_that_is_not_known_is_too(make_tool: MakeTool) -> None:
    body = {"type": "ErrorResponse", "error": {"code": "SUBSCRIPTION_TOKEN_INVALID"}}
    wire = answered(json.dumps(body).encode(), status="422 Unprocessable")

    assert "not set up" in (await searched(make_tool, saying(wire))).output


@pytest.mark.parametrize("body", [b"", b"[]", b'{"error":{"code":"VALIDATION"}}', b'{"error":7}'])
async def test_a_query_that_is_refused_can_be_written_otherwise(
    body: bytes, make_tool: MakeTool
) -> None:
    outcome = await searched(make_tool, saying(answered(body, status="422 Unprocessable")))

    assert outcome.is_error
    assert "other words" in outcome.output


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
async def test_an_engine_that_is_busy_is_asked_again(
    status: str, headers: list[str], retry_after_s: float | None, make_tool: MakeTool
) -> None:
    error = await unavailable(make_tool, saying(answered(b"{}", *headers, status=status)))

    waits = None if error.retry_after is None else error.retry_after.total_seconds()
    assert (error.reached, waits) == (True, retry_after_s)


async def test_a_month_that_is_used_up_is_not_waited_for(make_tool: MakeTool) -> None:
    headers = ("X-RateLimit-Remaining: 0, 0", "X-RateLimit-Reset: 1, 1419704")
    outcome = await searched(make_tool, saying(answered(b"{}", *headers, status="429 T")))

    assert outcome.is_error
    assert "used up" in outcome.output


async def hanging_up(_: RawServer, writer: asyncio.StreamWriter) -> None:
    writer.close()


@pytest.mark.parametrize(
    "answer",
    [
        hanging_up,
        saying(answered(b"<html>sign in</html>")),
        saying(answered(b"x" * 3 * 1024 * 1024)),
        saying(answered(b"{", "Content-Encoding: gzip")),
    ],
)
async def test_an_answer_that_is_none_is_asked_for_again(
    answer: Answer, make_tool: MakeTool
) -> None:
    error = await unavailable(make_tool, answer)

    assert error.reached
    assert "sign in" not in str(error)


async def test_nobody_at_the_address_is_asked_again(
    make_tool: MakeTool, unused_tcp_port: int
) -> None:
    tool = make_tool(f"http://127.0.0.1:{unused_tcp_port}")
    with pytest.raises(ToolUnavailableError) as raised:
        await tool.run({"query": "x"}, an_execution())

    assert not raised.value.reached


async def test_an_engine_inside_of_the_network_is_not_asked(make_tool: MakeTool) -> None:
    async with serving_raw(FINE) as engine:
        tool = make_tool(f"http://localhost:{engine.port}")
        outcome = await tool.run({"query": "x"}, an_execution())

    assert "not set up" in outcome.output
    assert engine.accepted == 0


async def subscribed(stack: Stack, **entitlements: object) -> ApiUser:
    """Return a new user with a plan of their own."""
    admin, user = await stack.sign_up_admin(), await stack.sign_up()
    plan = await make_plan(admin, **entitlements)
    assert (await give_plan(admin, user, plan["id"])).status_code == 200
    return user


def a_call(user: ApiUser, **values: Any) -> ToolExecution:  # noqa: ANN401 -- as an_execution
    named = {"turn_id": TurnId(new_id()), "step": 1, "tool_call_id": f"call-{new_id()}"}
    return an_execution(**{"actor": acting_user(UserId(UUID(user.id))), **named, **values})


async def charged(
    stack: Stack, tool: WebSearch, execution: ToolExecution, *, cost_usd: Decimal = COST
) -> ToolOutcome:
    """Run the tool as a turn does: with a row in the ledger, unless it is free."""
    ledger = ToolLedger(stack.foundation.database)
    if cost_usd:
        await ledger.open(execution, model="web_search", estimate_usd=cost_usd)
    status = ChargeStatus.FAILED
    try:
        outcome = await tool.run({"query": "x"}, execution)
        if not outcome.is_error:
            status = ChargeStatus.SETTLED
        return outcome
    finally:
        if cost_usd:
            await ledger.settle(execution, cost_usd=cost_usd, status=status, estimated=False)


async def rows_of(stack: Stack, user: ApiUser) -> list[tuple[str, str, Decimal]]:
    rows = await stack.inspection.rows(
        "SELECT model, status, cost_usd FROM ledger WHERE user_id = $1 ORDER BY id", UUID(user.id)
    )
    return [(row["model"], row["status"], row["cost_usd"]) for row in rows]


async def test_a_plan_allows_so_many_searches_in_a_period(
    make_tool: MakeTool, stack: Stack
) -> None:
    user = await subscribed(stack, maxWebSearches=2)
    async with serving_raw(FINE) as engine:
        tool = make_tool(engine.url)
        outcomes = [await charged(stack, tool, a_call(user)) for _ in range(4)]

    assert [outcome.is_error for outcome in outcomes] == [False, False, True, True]
    assert "2 web searches a month" in outcomes[3].output
    usage = await user.request("GET", "/subscription/usage")
    assert usage.json()["data"]["webSearches"] == {"used": 2, "limit": 2}
    assert len(engine.requests) == 2
    assert [status for _, status, _ in await rows_of(stack, user)] == [
        *("settled", "settled", "failed", "failed")
    ]


async def test_of_searches_at_once_just_as_many_are_made_as_there_is_room_for(
    make_tool: MakeTool, stack: Stack
) -> None:
    user = await subscribed(stack, maxWebSearches=5)
    async with serving_raw(FINE) as engine:
        tool = make_tool(engine.url)
        calls = [a_call(user) for _ in range(20)]
        outcomes = await asyncio.gather(*(charged(stack, tool, call) for call in calls))

    assert [outcome.is_error for outcome in outcomes].count(False) == 5
    assert len(engine.requests) == 5


async def test_a_plan_without_a_limit_allows_all(make_tool: MakeTool, stack: Stack) -> None:
    user = await subscribed(stack)
    async with serving_raw(FINE) as engine:
        outcomes = [await charged(stack, make_tool(engine.url), a_call(user)) for _ in range(3)]

    assert not any(outcome.is_error for outcome in outcomes)
    assert await rows_of(stack, user) == [(MODEL, "settled", COST)] * 3


async def test_a_plan_can_allow_none(make_tool: MakeTool, stack: Stack) -> None:
    user = await subscribed(stack, maxWebSearches=0)
    async with serving_raw(FINE) as engine:
        outcome = await charged(stack, make_tool(engine.url), a_call(user))

    assert outcome.is_error
    assert engine.accepted == 0


async def test_searches_that_failed_take_nothing_of_the_quota(
    make_tool: MakeTool, stack: Stack
) -> None:
    user = await subscribed(stack, maxWebSearches=1)
    async with serving_raw(saying(answered(b"", status="401 U"))) as engine:
        await charged(stack, make_tool(engine.url), a_call(user))
    async with serving_raw(hanging_up) as engine:
        with pytest.raises(ToolUnavailableError):
            await charged(stack, make_tool(engine.url), a_call(user))
    async with serving_raw(FINE) as engine:
        outcome = await charged(stack, make_tool(engine.url), a_call(user))

    assert not outcome.is_error


async def test_the_attempts_of_a_call_are_one_search(make_tool: MakeTool, stack: Stack) -> None:
    user = await subscribed(stack, maxWebSearches=1)
    call = a_call(user)
    ledger = ToolLedger(stack.foundation.database)
    # An attempt that was admitted, and whose process died.
    await ledger.open(call, model=MODEL, estimate_usd=COST)
    async with serving_raw(FINE) as engine:
        tool = make_tool(engine.url)
        again = await charged(stack, tool, replace(call, attempt=2))
        other = await charged(stack, tool, a_call(user))

    assert (again.is_error, other.is_error) == (False, True)
    assert [status for _, status, _ in await rows_of(stack, user)] == ["lost", "settled", "failed"]


async def test_searches_that_cost_nothing_are_counted_too(
    make_tool: MakeTool, stack: Stack
) -> None:
    user = await subscribed(stack, maxWebSearches=2)
    free = Decimal(0)
    async with serving_raw(saying(answered(b"", status="401 U"))) as engine:
        await charged(stack, make_tool(engine.url), a_call(user), cost_usd=free)
    async with serving_raw(FINE) as engine:
        tool = make_tool(engine.url)
        outcomes = [await charged(stack, tool, a_call(user), cost_usd=free) for _ in range(3)]

    assert [outcome.is_error for outcome in outcomes] == [False, False, True]
    assert await rows_of(stack, user) == [
        (MODEL, "failed", free),
        (MODEL, "settled", free),
        (MODEL, "settled", free),
    ]


async def test_searches_of_others_and_of_earlier_periods_do_not_count(
    make_tool: MakeTool, stack: Stack
) -> None:
    user, other = await subscribed(stack, maxWebSearches=1), await stack.sign_up()
    async with serving_raw(FINE) as engine:
        tool = make_tool(engine.url)
        await charged(stack, tool, a_call(other))
        await charged(stack, tool, a_call(user))
        await stack.inspection.execute(
            "UPDATE ledger SET created_at = created_at - interval '32 days' WHERE user_id = $1",
            UUID(user.id),
        )
        outcomes = [await charged(stack, tool, a_call(user)) for _ in range(2)]

    assert [outcome.is_error for outcome in outcomes] == [False, True]


async def test_a_search_that_is_cancelled_leaves_the_engine_and_stays_counted(
    make_tool: MakeTool, stack: Stack
) -> None:
    user = await subscribed(stack, maxWebSearches=1)
    asked = asyncio.Event()

    async def answer(_: RawServer, __: asyncio.StreamWriter) -> None:
        asked.set()
        await asyncio.Event().wait()

    async with serving_raw(answer) as engine, asyncio.timeout(30):
        call = a_call(user)
        running = asyncio.create_task(make_tool(engine.url).run({"query": "x"}, call))
        await asked.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await engine.hung_up.wait()

    assert await rows_of(stack, user) == [(MODEL, "cancelled", Decimal(0))]


async def test_a_trial_outside_of_a_turn_is_not_counted(make_tool: MakeTool, stack: Stack) -> None:
    user = await subscribed(stack, maxWebSearches=0)
    async with serving_raw(FINE) as engine:
        execution = a_call(user, turn_id=None)
        outcome = await make_tool(engine.url).run({"query": "x"}, execution)

    assert not outcome.is_error
    assert await rows_of(stack, user) == []
