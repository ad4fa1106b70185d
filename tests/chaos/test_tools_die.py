"""Everything around a tool's effect dies: it is had as often as promised, and paid for once."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Final
from uuid import uuid4

import httpx
import psutil
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
OPEN_CHARGE: Final = "WITH turn AS (\n    SELECT (SELECT api_key_id"
"""How the statement begins that reserves what a call may cost, and notes it in the ledger."""
FREE: Final = Decimal(0)
MCP_SERVER: Final = str(Path(__file__).parents[1] / "fakes" / "mcp_effects.py")
PATIENCE_S: Final = 12.0
"""For the answer of a call that is not repeated; dead workers are detected after five seconds."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Everturn, the people at it, and a workflow engine, which outlives whatever is killed."""

    everturn: ScriptedStack
    client: Client
    admin: Client
    engine: WebhookEngine
    gate: str = field(default_factory=lambda: uuid4().hex)
    """Where models wait before they call."""

    async def begin(self, tool: str, *, hold: str | None = None) -> CallingTurn:
        """Begin a turn whose model calls the tool."""
        return await CallingTurn.begin(self.everturn, self.client, tool, hold=hold)

    async def begin_held(self, retry_class: str) -> CallingTurn:
        """Begin a turn with a tool of its own, whose model waits at the gate."""
        fields = {"retry_class": retry_class, "timeout_s": PATIENCE_S}
        return await self.begin(
            await register_webhook(self.admin, self.engine, **fields), hold=self.gate
        )

    async def kill(self, *names: str) -> None:
        """Kill processes, and hold them down."""
        for name in names:
            self.everturn.stack.kill(name)
        for name in names:
            await self.everturn.stack.stop(name)

    def calls(self, turn: CallingTurn) -> list[ReceivedCall]:
        """Return the requests that the webhook of the turn's tool has got."""
        return self.engine.calls[turn.tool]


@pytest.fixture
async def scene(everturn: ScriptedStack, client: Client) -> AsyncIterator[Scene]:
    """A scene; at its end the tools are gone: other users would have them."""
    async with Client.signed_up(everturn.api) as person, webhook_engine() as engine:
        yield Scene(everturn, client, await administrator(everturn, person), engine)
        for table in ("workflow_tools", "mcp_servers", "tool_settings"):
            await everturn.query(f"DELETE FROM {table}")


def after(opened: asyncio.Event, value: object) -> Callable[[ReceivedCall], Awaitable[Response]]:
    """Answer once the event is set."""

    async def wait(_: ReceivedCall) -> Response:
        await opened.wait()
        return JSONResponse(value)

    return wait


async def test_a_kill_at_any_point_around_an_effect(scene: Scene) -> None:
    """Nine turns have come to three places, with tools of three classes, when the worker dies."""
    places = ("before the request", "before the answer", "before the result is stored")
    turns = {
        (place, retry_class): await scene.begin_held(retry_class)
        for place in places
        for retry_class in CLASSES
    }
    unsent, unanswered, unstored = (
        [turns[place, retry_class] for retry_class in CLASSES] for place in places
    )
    over, answering = asyncio.Event(), asyncio.Event()
    for turn in unanswered:
        scene.engine.script(turn.tool, never(over), at_once("Ticket 7."))
    for turn in unstored:
        scene.engine.script(turn.tool, after(answering, "Ticket 7."))

    async with Holder.open(scene.everturn) as holder:
        await holder.take_charges(turn.turn_id for turn in unsent)
        scene.everturn.model.release(scene.gate)
        for turn in (*unanswered, *unstored):
            await scene.engine.wait_for_call(turn.tool)
        await holder.take_calls(turn.turn_id for turn in unstored)
        answering.set()
        await holder.until_waiting(scene.everturn, OPEN_CHARGE, 3)
        # A user has five connections at a time: the third result waits in the worker.
        await holder.until_waiting(scene.everturn, "UPDATE tool_calls SET status = $4", 2)
        assert [len(scene.calls(turn)) for turn in unsent] == [0, 0, 0]
        await scene.kill(TOOLS)
    await scene.everturn.stack.start(TOOLS)
    ended = {place: await turn.end() for place, turn in turns.items()}
    over.set()

    def seen(retry_class: str) -> list[tuple[int, int, str, Decimal]]:
        """Return for each place the requests, the effects, the end and what was charged."""
        return [
            (
                len(scene.calls(turns[place, retry_class])),
                effects(scene.calls(turns[place, retry_class])),
                ended[place, retry_class].status,
                sum((cost for _, cost in ended[place, retry_class].charged), FREE),
            )
            for place in places
        ]

    # A service that recognises a call by its key is called twice and paid once.
    assert seen(KEYED) == [
        (1, 1, "completed", PRICE),
        (2, 1, "completed", PRICE),
        (2, 1, "completed", PRICE),
    ]
    # One that does not is paid for each call that may have arrived.
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


async def test_another_worker_reports_a_stored_result_without_repeating_the_call(
    scene: Scene,
) -> None:
    """Temporal can't receive the results because the worker that has them dies."""
    turns = [await scene.begin_held(each) for each in CLASSES]
    answering = asyncio.Event()
    for turn in turns:
        scene.engine.script(turn.tool, after(answering, "Ticket 7."))
    scene.everturn.model.release(scene.gate)
    for turn in turns:
        await scene.engine.wait_for_call(turn.tool)

    await scene.everturn.stack.stop("temporal")
    answering.set()
    for turn in turns:
        await eventually(turn.stored, lambda row: row["status"] == "completed")
    await scene.kill(TOOLS)
    await scene.everturn.stack.start("temporal")
    await scene.everturn.stack.start(TOOLS)

    for turn in turns:
        assert_paid_once(await turn.end(), "Ticket 7.")
        assert len(scene.calls(turn)) == 1


def assert_paid_once(outcome: Outcome, output: str) -> None:
    assert (outcome.status, outcome.output) == ("completed", output)
    assert outcome.charged == [("settled", PRICE)]


async def test_callbacks_while_all_workers_are_dead_reach_the_next_worker(scene: Scene) -> None:
    async with both_waiting(scene) as (asked, taken):
        await scene.kill(TURNS, TOOLS)
        await asked.decide("approve")
        assert await answer_later(scene, taken) == 200
        await asyncio.gather(*map(scene.everturn.stack.start, (TURNS, TOOLS)))


async def test_callbacks_while_temporal_is_unavailable_are_delivered_by_a_sweep(
    scene: Scene,
) -> None:
    async with both_waiting(scene) as (asked, taken):
        await scene.everturn.stack.stop("temporal")
        await asked.decide("approve")
        assert await answer_later(scene, taken) == 200
        await scene.everturn.stack.start("temporal")


@asynccontextmanager
async def both_waiting(scene: Scene) -> AsyncIterator[tuple[CallingTurn, CallingTurn]]:
    """Have one turn wait for its user and one for a callback; after the block both go on."""
    asking = await register_webhook(scene.admin, scene.engine, approval="ask", retry_class=NEVER)
    taking = await register_webhook(scene.admin, scene.engine, retry_class=NEVER, timeout_s=300)
    scene.engine.script(taking, later())
    asked = await scene.begin(asking)
    taken = await scene.begin(taking)
    await eventually(asked.stored, lambda row: row.get("status") == "awaiting_approval")
    await eventually(taken.stored, lambda row: row.get("callback_until") is not None)

    yield asked, taken

    assert_paid_once(await asked.end(), "done")
    assert_paid_once(await taken.end(), "Ticket 8.")
    assert len(scene.calls(asked)) == len(scene.calls(taken)) == 1


async def answer_later(scene: Scene, turn: CallingTurn) -> int:
    """Answer the turn's call by its callback, and return the status of the response."""
    (call,) = scene.calls(turn)
    async with httpx.AsyncClient(base_url=f"{scene.everturn.api}/api/v1", trust_env=False) as http:
        response = await call_back(http, call.callback_path, {"output": "Ticket 8."})
    return response.status_code


async def test_a_result_waits_for_postgres_and_is_not_requested_again(
    scene: Scene,
) -> None:
    turns = [await scene.begin_held(each) for each in CLASSES]
    answering = asyncio.Event()
    for turn in turns:
        scene.engine.script(turn.tool, after(answering, "Ticket 7."))
    scene.everturn.model.release(scene.gate)
    for turn in turns:
        await scene.engine.wait_for_call(turn.tool)
    log = scene.everturn.stack.directory.path / "logs" / f"{TOOLS}.log"
    before = log.read_text().count("database_unavailable")

    async def postponed() -> int:
        return log.read_text().count("database_unavailable") - before

    await scene.everturn.stack.stop("postgres")
    answering.set()
    await eventually(postponed, lambda count: count >= len(turns))
    await scene.everturn.stack.start("postgres")

    for turn in turns:
        assert_paid_once(await turn.end(), "Ticket 7.")
        assert len(scene.calls(turn)) == 1


@pytest.mark.parametrize("victim", ["the server", "the worker"])
async def test_an_mcp_call_is_retried_only_if_that_is_harmless(
    scene: Scene, tmp_path: Path, victim: str
) -> None:
    """One call that may have had an effect, and one that reads, are under way at the kill."""
    journal = tmp_path / "journal.txt"
    server = await register_mcp_server(scene.admin, journal)
    act = await scene.begin(f"{server}__act")
    look = await scene.begin(f"{server}__look")

    async def noted() -> list[str]:
        return sorted(journal.read_text().split()) if journal.exists() else []

    await eventually(noted, lambda seen: seen == ["act", "look"])
    if victim == "the worker":
        scene.everturn.stack.kill(TOOLS)
    else:
        process_of_mcp_server(scene).kill()
    acted, looked = await act.end(), await look.end()

    assert (acted.status, acted.is_unknown) == ("failed", True)
    assert (looked.status, looked.output) == ("completed", "seen")
    assert await noted() == ["act", "look", "look"]


async def register_mcp_server(admin: Client, journal: Path) -> str:
    """Register a server that the workers run, have its tools listed, and return its name."""
    name = f"s{uuid4().hex[:12]}"
    await admin.api.admin.mcp_servers.create_stdio(
        name=name, command=sys.executable, args=[MCP_SERVER], env={"JOURNAL": str(journal)}
    )

    async def tool_count() -> int:
        return (await admin.api.admin.mcp_servers.get(name)).tool_count

    await eventually(tool_count, lambda count: count == 2)
    return name


def process_of_mcp_server(scene: Scene) -> psutil.Process:
    """Return the one process of the server."""
    children = psutil.Process(scene.everturn.stack.pid(TOOLS)).children(recursive=True)
    (found,) = (child for child in children if MCP_SERVER in child.cmdline())
    return found
