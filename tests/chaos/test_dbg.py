"""Everything around a tool's effect dies: it is had as often as promised, and paid for once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, Final

import httpx
import pytest
from starlette.responses import JSONResponse, Response

from tests.fakes.webhook_engine import (
    ReceivedCall,
    WebhookEngine,
    at_once,
    call_back,
    later,
    never,
    webhook_engine,
)
from tests.running_everturn.client import Client
from tests.running_everturn.holding import Holder
from tests.running_everturn.stack import ScriptedStack
from tests.running_everturn.tools import (
    PRICE,
    CallingTurn,
    Outcome,
    administrator,
    effects,
    register_webhook,
)
from tests.running_everturn.waiting import eventually

TURNS, TOOLS = "worker-turns", "worker-tools"
KEYED, IDEMPOTENT, NEVER = "keyed", "idempotent", "never"
CLASSES: Final = (KEYED, IDEMPOTENT, NEVER)
FREE: Final = Decimal(0)
PATIENCE_S: Final = 12.0
"""For an answer of a call that is not made again; the dead are found out after five seconds."""


@pytest.fixture
async def admin(everturn: ScriptedStack) -> AsyncIterator[Client]:
    """An administrator, whose tools are gone after the test: other users would have them."""
    async with Client.signed_up(everturn.api) as client:
        yield await administrator(everturn, client)
        await everturn.query("DELETE FROM workflow_tools")
        await everturn.query("DELETE FROM tool_settings")


@pytest.fixture
async def engine() -> AsyncIterator[WebhookEngine]:
    """A workflow engine, which outlives whatever is killed."""
    async with webhook_engine() as opened:
        yield opened


def after(opened: asyncio.Event, value: object) -> Callable[[ReceivedCall], Awaitable[Response]]:
    """Answer once the event is set."""

    async def wait(_: ReceivedCall) -> Response:
        await opened.wait()
        return JSONResponse(value)

    return wait


async def calling(
    everturn: ScriptedStack, client: Client, admin: Client, engine: WebhookEngine, retry_class: str
) -> CallingTurn:
    """Begin a turn whose call is held at the model's gate `call`."""
    tool = await register_webhook(admin, engine, retryClass=retry_class, timeoutS=PATIENCE_S)
    return await CallingTurn.begin(everturn, client, tool, hold="call")


async def kill(everturn: ScriptedStack, *names: str) -> None:
    """Kill processes, and hold them down."""
    for name in names:
        everturn.stack.kill(name)
    for name in names:
        await everturn.stack.stop(name)


async def test_one_kill_at_every_place_around_an_effect(
    everturn: ScriptedStack, client: Client, admin: Client, engine: WebhookEngine
) -> None:
    """Nine turns have come to three places, with tools of three classes, when the worker dies."""
    places = ("before the request", "before the answer", "before the result is stored")
    turns = {
        (place, retry_class): await calling(everturn, client, admin, engine, retry_class)
        for place in places
        for retry_class in CLASSES
    }
    unsent, unanswered, unstored = (
        [turns[place, retry_class] for retry_class in CLASSES] for place in places
    )
    over, answering = asyncio.Event(), asyncio.Event()
    for turn in unanswered:
        engine.script(turn.tool, never(over), at_once("Ticket 7."))
    for turn in unstored:
        engine.script(turn.tool, after(answering, "Ticket 7."))

    async with Holder.open(everturn) as holder:
        await holder.take_charges(turn.turn_id for turn in unsent)
        everturn.model.release("call")
        for turn in (*unanswered, *unstored):
            await engine.wait_for_call(turn.tool)
        await holder.take_calls(turn.turn_id for turn in unstored)
        answering.set()
        await holder.until_waiting(everturn, "INSERT INTO ledger", 3)
        await holder.until_waiting(everturn, "UPDATE tool_calls SET status = $4", 3)
        assert [len(engine.calls[turn.tool]) for turn in unsent] == [0, 0, 0]
        await kill(everturn, TOOLS)
    await everturn.stack.start(TOOLS)
    ended = {place: await turn.end() for place, turn in turns.items()}
    over.set()

    def seen(retry_class: str) -> list[tuple[int, int, str, Decimal]]:
        """Return for each place the requests, the effects, the end and what was charged."""
        return [
            (
                len(engine.calls[turns[place, retry_class].tool]),
                effects(engine.calls[turns[place, retry_class].tool]),
                ended[place, retry_class].status,
                sum((cost for _, cost in ended[place, retry_class].charged), FREE),
            )
            for place in places
        ]

    # Whoever knows a call again by its key is asked twice, and paid once.
    assert seen(KEYED) == [
        (1, 1, "completed", PRICE),
        (2, 1, "completed", PRICE),
        (2, 1, "completed", PRICE),
    ]
    # Whoever does not is paid for each time that it may have been asked.
    assert seen(IDEMPOTENT) == [
        (1, 1, "completed", PRICE),
        (2, 1, "completed", 2 * PRICE),
        (2, 1, "completed", 2 * PRICE),
    ]
    assert seen(NEVER) == [
        (0, 0, "failed", FREE),
        (1, 1, "failed", PRICE),
        (1, 1, "failed", PRICE),
    ]
    for (_, retry_class), outcome in ended.items():
        assert outcome.is_unknown is (retry_class == NEVER)


async def test_a_result_that_is_stored_is_reported_by_another_worker_without_another_call(
    everturn: ScriptedStack, client: Client, admin: Client, engine: WebhookEngine
) -> None:
    """Temporal can't be told of the results when the worker that has them dies."""
    turns = [await calling(everturn, client, admin, engine, each) for each in CLASSES]
    answering = asyncio.Event()
    for turn in turns:
        engine.script(turn.tool, after(answering, "Ticket 7."))
    everturn.model.release("call")
    for turn in turns:
        await engine.wait_for_call(turn.tool)

    await everturn.stack.stop("temporal")
    answering.set()
    for turn in turns:
        await eventually(turn.stored, lambda row: row["status"] == "completed")
    await kill(everturn, TOOLS)
    await everturn.stack.start("temporal")
    await everturn.stack.start(TOOLS)

    for turn in turns:
        assert_paid_once(await turn.end(), "Ticket 7.")
        assert len(engine.calls[turn.tool]) == 1


def assert_paid_once(outcome: Outcome, output: str) -> None:
    assert (outcome.status, outcome.output) == ("completed", output)
    assert outcome.charged == [("settled", PRICE)]


async def test_what_comes_while_all_workers_are_dead_is_heard_of_by_the_next(
    everturn: ScriptedStack, client: Client, admin: Client, engine: WebhookEngine
) -> None:
    async with both_waiting(everturn, client, admin, engine) as (asked, taken):
        await kill(everturn, TURNS, TOOLS)
        import time as _t
        t0=_t.monotonic()
        await asked.decide("approve")
        print("DECIDE", _t.monotonic()-t0)
        assert await answer_later(everturn, engine, taken) == 200
        for name in (TURNS, TOOLS):
            await everturn.stack.start(name)


async def test_what_comes_while_temporal_is_away_is_told_by_a_sweep(
    everturn: ScriptedStack, client: Client, admin: Client, engine: WebhookEngine
) -> None:
    async with both_waiting(everturn, client, admin, engine) as (asked, taken):
        await everturn.stack.stop("temporal")
        import time as _t
        t0=_t.monotonic()
        await asked.decide("approve")
        print("DECIDE", _t.monotonic()-t0)
        assert await answer_later(everturn, engine, taken) == 200
        await everturn.stack.start("temporal")


@asynccontextmanager
async def both_waiting(
    everturn: ScriptedStack, client: Client, admin: Client, engine: WebhookEngine
) -> AsyncIterator[tuple[CallingTurn, CallingTurn]]:
    """Have one turn wait for its user and one for a callback; after the block both go on."""
    asking = await register_webhook(admin, engine, approval="ask", retryClass=NEVER)
    taking = await register_webhook(admin, engine, retryClass=NEVER, timeoutS=300)
    engine.script(taking, later())
    asked = await CallingTurn.begin(everturn, client, asking)
    taken = await CallingTurn.begin(everturn, client, taking)
    await eventually(asked.stored, lambda row: row.get("status") == "awaiting_approval")
    await eventually(taken.stored, lambda row: row.get("callback_until") is not None)

    yield asked, taken

    import time as _t
    t0=_t.monotonic()
    assert_paid_once(await asked.end(), "done")
    print("ASKED", _t.monotonic()-t0)
    for who in (asked, taken):
        h=(await everturn.temporal()).get_workflow_handle(f"turn-{who.turn_id}")
        if who is taken: assert_paid_once(await taken.end(), "Ticket 8.")
        async for e in h.fetch_history_events():
            print("HIST", e.event_id, e.event_time.ToJsonString()[14:23], __import__("temporalio.api.enums.v1").api.enums.v1.EventType.Name(e.event_type))
    assert_paid_once(await taken.end(), "Ticket 8.")
    assert len(engine.calls[asking]) == len(engine.calls[taking]) == 1


async def answer_later(everturn: ScriptedStack, engine: WebhookEngine, turn: CallingTurn) -> int:
    """Answer the turn's call by its callback, and return the status of the response."""
    (call,) = engine.calls[turn.tool]
    async with httpx.AsyncClient(base_url=f"{everturn.api}/api/v1", trust_env=False) as http:
        import time as _t
        t0=_t.monotonic()
        http.timeout=40
        response = await call_back(http, call.callback_path, {"output": "Ticket 8."})
    print("CALLBACK", _t.monotonic()-t0)
    return response.status_code


async def test_a_result_that_postgres_can_not_take_waits_for_it_and_is_not_asked_for_again(
    everturn: ScriptedStack, client: Client, admin: Client, engine: WebhookEngine
) -> None:
    turns = [await calling(everturn, client, admin, engine, each) for each in CLASSES]
    answering = asyncio.Event()
    for turn in turns:
        engine.script(turn.tool, after(answering, "Ticket 7."))
    everturn.model.release("call")
    for turn in turns:
        await engine.wait_for_call(turn.tool)
    log = everturn.stack.directory.path / "logs" / f"{TOOLS}.log"
    before = log.read_text().count("database_unavailable")

    async def postponed() -> int:
        return log.read_text().count("database_unavailable") - before

    await everturn.stack.stop("postgres")
    answering.set()
    await eventually(postponed, lambda count: count >= len(turns))
    await everturn.stack.start("postgres")

    for turn in turns:
        assert_paid_once(await turn.end(), "Ticket 7.")
        assert len(engine.calls[turn.tool]) == 1
