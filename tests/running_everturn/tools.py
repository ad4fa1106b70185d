"""Tools registered with a running Everturn, and turns whose model calls them."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal, Self
from uuid import UUID, uuid4

from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fakes.webhook_engine import SECRET, ReceivedCall, WebhookEngine
from tests.running_everturn.checks import assert_stream_is_whole
from tests.running_everturn.client import Client, Event
from tests.running_everturn.stack import ScriptedStack

CALL_ID: Final = "effect"
PRICE: Final = Decimal("0.25")
"""The price of a call of a registered webhook."""

_ENDS: Final = frozenset({"completed", "failed", "denied"})


@dataclass(frozen=True, slots=True)
class Outcome:
    """A turn's outcome: the last event of its one call, and the ledger's rows about it."""

    call: dict[str, Any]
    charges: Sequence[dict[str, Any]]

    @property
    def status(self) -> str:
        return str(self.call["status"])

    @property
    def output(self) -> str:
        return str(self.call["output"])

    @property
    def is_unknown(self) -> bool:
        """Whether the model learned that the outcome of the call is unknown."""
        return "The outcome of this call is unknown" in self.output

    @property
    def charged(self) -> list[tuple[str, Decimal]]:
        """How each attempt ended, and for how much."""
        return [(row["status"], row["cost_usd"]) for row in self.charges]


@dataclass(frozen=True, slots=True)
class CallingTurn:
    """A turn whose model calls a tool once, and then says `Done.` whatever the outcome."""

    everturn: ScriptedStack
    client: Client
    tool: str
    turn_id: str

    @classmethod
    async def begin(
        cls, everturn: ScriptedStack, client: Client, tool: str, *, hold: str | None = None
    ) -> Self:
        """Ask for a turn; with `hold`, the model's call waits at that gate."""
        question = uuid4().hex
        call = ToolCall(id=CALL_ID, name=tool, input={"title": "Printer on fire"})
        everturn.model.add(Script(match=question, tool_calls=(call,), hold=hold))
        everturn.model.add(Script(match=question, text="Done."))
        async with client.ask(question) as stream:
            return cls(everturn, client, tool, stream.turn_id)

    async def stored(self) -> dict[str, Any]:
        """Return the row of the call, empty where the model has not called yet."""
        query = "SELECT * FROM tool_calls WHERE turn_id = $1"
        rows = await self.everturn.query(query, UUID(self.turn_id))
        return rows[0] if rows else {}

    async def decide(self, decision: Literal["approve", "deny"]) -> None:
        """Decide about the call as the turn's owner."""
        await self.client.api.turns.decide(self.turn_id, CALL_ID, decision)

    async def end(self) -> Outcome:
        """Wait for the end, check what holds of every turn, and return what became of the call."""
        events = await self.client.events(self.turn_id)
        assert await assert_stream_is_whole(self.client, self.turn_id, events) == "Done."
        ledger = await self.everturn.ledger(self.turn_id)
        assert all(row["status"] != "open" for row in ledger)
        turn = await self.client.turn(self.turn_id)
        assert Decimal(turn["costUsd"]) == sum(row["cost_usd"] for row in ledger)
        charges = [row for row in ledger if row["kind"] == "tool"]
        return Outcome(_end_of_call(events), charges)


def _end_of_call(events: Sequence[Event]) -> dict[str, Any]:
    ends = [event.data for event in events if event.name == "tool_call" and event.status in _ENDS]
    assert len(ends) == 1, ends
    return ends[0]


async def administrator(everturn: ScriptedStack, client: Client) -> Client:
    """Make the person at the API an administrator."""
    await everturn.query("UPDATE users SET role = 'admin' WHERE email = $1", client.email)
    return client


async def register_webhook(admin: Client, engine: WebhookEngine, **fields: Any) -> str:  # noqa: ANN401 -- of a tool
    """Register a tool whose webhook is the engine's of the same name, for a price; return it."""
    name = f"w{uuid4().hex[:12]}"
    await admin.api.admin.workflow_tools.create(
        name=name,
        description="Opens a ticket.",
        url=engine.url(name),
        input_schema={"type": "object", "properties": {"title": {"type": "string"}}},
        secret=SECRET,
        **fields,
    )
    await admin.api.admin.tools.update(name, cost_usd=PRICE)
    return name


def effects(calls: Sequence[ReceivedCall]) -> int:
    """Return how often an engine does something that knows a call again by its key."""
    for call in calls:
        assert call.is_signed()
        assert call.headers["webhook-id"] == call.headers["idempotency-key"]
    return len({call.headers["idempotency-key"] for call in calls})
