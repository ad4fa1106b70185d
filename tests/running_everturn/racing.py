"""Many clients who race for one budget, each by the public client, and what they may have spent."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, Self
from uuid import UUID, uuid4

import httpx2
from pydantic import SecretStr

from everturn_client import AsyncEverturn, BudgetExceededError
from everturn_client.models import AmountUse, WindowUse
from schema.usage import TokenUsage
from services.models.pricing import Pricing
from tests.fakes.scripted_model.request_log import RequestRecord
from tests.fakes.scripted_model.scripts import Script
from tests.running_everturn.client import PASSWORD
from tests.running_everturn.stack import ScriptedStack

_PIECES: Final = ("word " * 480,) * 5
"""An answer of 3,000 tokens, of the 4,096 that are reserved."""

_WITHIN_S: Final = 150.0
_LONGEST_WAIT_S: Final = 60
_AT_ONCE: Final = 16
_PRICING: Final = Pricing({})

_LEDGER: Final = "SELECT * FROM ledger WHERE user_id = ANY($1) ORDER BY created_at, id"
_STORED: Final = """
SELECT (SELECT count(*) FROM turns WHERE chat_id = ANY($1))
     + (SELECT count(*) FROM messages WHERE chat_id = ANY($1)) AS stored
"""
_DAYS: Final = """
SELECT coalesce(sum(settled_usd), 0) AS settled, coalesce(sum(settled_tokens), 0) AS tokens
FROM usage_days WHERE scope = $1 AND subject_id = ANY($2)
"""


@dataclass(frozen=True, slots=True)
class Racer:
    """One client, with a chat and a question that nobody else asks."""

    api: AsyncEverturn
    chat_id: UUID
    question: str


@dataclass(frozen=True, slots=True)
class Finish:
    """How a client's request ended; `refused` by a 402, else as the turn of its stream."""

    racer: Racer
    status: str
    turn_id: str = ""
    error: str | None = None


@dataclass(slots=True)
class Race:
    """The clients' connections, and what the API's servers could not do at once."""

    everturn: ScriptedStack
    http: httpx2.AsyncClient
    name: str = field(default_factory=lambda: f"race-{uuid4().hex}")
    statuses: Counter[int] = field(default_factory=Counter)

    @classmethod
    @asynccontextmanager
    async def at(cls, everturn: ScriptedStack) -> AsyncIterator[Self]:
        """Open connections; the model answers each question at the pace of a quick one."""
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx2.AsyncClient(trust_env=False, limits=limits, timeout=60) as http:
            race = cls(everturn, http)
            http.event_hooks = {"response": [race._see]}
            everturn.model.add(
                Script(
                    match=race.name,
                    repeat=10_000,
                    pieces=_PIECES,
                    delay_to_first_s=0.1,
                    delay_between_s=0.1,
                )
            )
            yield race

    @property
    def requests(self) -> list[RequestRecord]:
        """What the model was asked."""
        return self.everturn.model.requests_matching(self.name)

    def client(self, *, api_key: SecretStr | None = None) -> AsyncEverturn:
        """Return a client that repeats what did not arrive, as the public one does."""
        return AsyncEverturn(
            self.everturn.api, http_client=self.http, max_retries=10, api_key=api_key
        )

    async def sign_up(self, count: int) -> list[tuple[AsyncEverturn, UUID]]:
        """Return this number of new users, each signed in."""

        async def one() -> tuple[AsyncEverturn, UUID]:
            api = self.client()
            session = await api.auth.signup(email=f"{uuid4().hex}@example.com", password=PASSWORD)
            return api, UUID(session.user.id)

        return await _few_at_once(one() for _ in range(count))

    async def racers(self, apis: Sequence[AsyncEverturn]) -> list[Racer]:
        """Return a racer for each client, with a chat of its own."""

        async def one(number: int, api: AsyncEverturn) -> Racer:
            chat = await api.chats.create(title="Race")
            return Racer(api, UUID(chat.id), f"{self.name} {number:03}.")

        return await _few_at_once(one(number, api) for number, api in enumerate(apis))

    async def run(
        self, racers: Sequence[Racer], *, meanwhile: Awaitable[None] | None = None
    ) -> list[Finish]:
        """Send all questions at once, and return when each client has its end."""
        async with asyncio.timeout(_WITHIN_S), asyncio.TaskGroup() as group:
            asking = [group.create_task(self._ask(racer)) for racer in racers]
            if meanwhile is not None:
                await meanwhile
        return [task.result() for task in asking]

    async def _ask(self, racer: Racer) -> Finish:
        try:
            async with racer.api.messages.stream(
                str(racer.chat_id), content=racer.question
            ) as stream:
                async for _ in stream:
                    pass
        except BudgetExceededError:
            return Finish(racer, "refused")
        state = stream.state
        assert state.done is not None
        return Finish(
            racer, state.done.status, stream.turn_id, state.error.code if state.error else None
        )

    async def _see(self, response: httpx2.Response) -> None:
        self.statuses[response.status_code] += 1
        if response.status_code >= 500:
            assert response.status_code == 503, response
            assert 0 < int(response.headers["Retry-After"]) <= _LONGEST_WAIT_S


@dataclass(frozen=True, slots=True)
class Bill:
    """What the ledger has of users, and what the model has counted of the same questions."""

    rows: list[dict[str, Any]]
    records: list[RequestRecord]

    @classmethod
    async def of(cls, race: Race, users: Sequence[UUID]) -> Self:
        """Read it, and check what holds however a race went: nothing is reserved any more."""
        rows = await race.everturn.query(_LEDGER, list(users))
        (days,) = await race.everturn.query(_DAYS, "user", list(users))
        bill = cls(rows, race.requests)
        assert [row for row in rows if row["status"] == "open"] == []
        assert days == {"settled": bill.usd, "tokens": bill.tokens}
        return bill

    @property
    def usd(self) -> Decimal:
        """What the ledger has charged."""
        return sum((Decimal(row["cost_usd"]) for row in self.rows), Decimal(0))

    @property
    def tokens(self) -> int:
        """All tokens that the ledger has charged."""
        return sum(map(_tokens, self.rows))

    @property
    def error(self) -> Decimal:
        """By how much the worst estimate of a call was too low, if one was."""
        errors = [Decimal(row["cost_usd"] - row["reserved_usd"]) for row in self.rows]
        return max([Decimal(0), *errors])

    def check_each(self, finishes: Sequence[Finish]) -> None:
        """Check each turn's rows against the model's own count: one call for each completed one."""
        for finish in finishes:
            mine = [row for row in self.rows if str(row["turn_id"]) == finish.turn_id]
            asked = [record for record in self.records if finish.racer.question in record.user_text]
            assert len(mine) == len(asked) == (finish.status == "completed"), (finish, mine, asked)
            for row, record in zip(mine, asked, strict=True):
                assert (row["status"], row["estimated"]) == ("settled", False), (row, record)
                assert record.finished
                assert used_in(row) == billed_of(record)
                assert row["cost_usd"] == cost_of(row["model"], billed_of(record))


def check_ends(finishes: Sequence[Finish]) -> Counter[str]:
    """Check that each client learned how its request ended; return how many ended how."""
    for finish in finishes:
        assert finish.status in {"refused", "completed", "failed"}, finish
        assert finish.error == ("BUDGET_EXCEEDED" if finish.status == "failed" else None), finish
    return Counter(finish.status for finish in finishes)


async def check_nothing_stored(everturn: ScriptedStack, finishes: Sequence[Finish]) -> None:
    """Check that messages which were refused left nothing behind."""
    chats = [finish.racer.chat_id for finish in finishes if finish.status == "refused"]
    assert await everturn.query(_STORED, chats) == [{"stored": 0}]


def check_window(window: WindowUse, *, usd: Decimal, tokens: int, limit: Decimal | None) -> None:
    """Check that an endpoint shows what the ledger has, to the last digit."""
    left = None if limit is None else max(limit - usd, Decimal(0))
    assert window.usd == AmountUse(limit=limit, used=usd, reserved=Decimal(0), left=left)
    assert (window.tokens.used, window.tokens.reserved) == (Decimal(tokens), Decimal(0))


def used_in(row: dict[str, Any]) -> TokenUsage:
    """Return the tokens of a row of the ledger."""
    return TokenUsage(**{name: row[name] for name in TokenUsage.model_fields})


def billed_of(record: RequestRecord) -> TokenUsage:
    """Return the tokens that the model has counted by itself."""
    return TokenUsage(
        input_tokens=record.usage.input_tokens,
        output_tokens=record.usage.output_tokens,
        cache_read_tokens=record.usage.cache_read_input_tokens,
        cache_write_tokens=record.usage.cache_creation_input_tokens,
    )


def cost_of(model: str, usage: TokenUsage) -> Decimal:
    """Return what tokens cost, in the database's precision."""
    return _PRICING.cost(model, usage).quantize(Decimal("1e-10"))


def longest_answer_usd(model: str) -> Decimal:
    """Return what a longest answer costs, without its prompt: at least that is reserved."""
    return _PRICING.dearest(model, input_tokens=100).output * 4_096


def _tokens(row: dict[str, Any]) -> int:
    return sum(row[name] for name in TokenUsage.model_fields)


async def _few_at_once(works: Iterable[Any]) -> list[Any]:
    """Return the results of all; preparations would only wait for each other."""
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(work: Any) -> Any:  # noqa: ANN401 -- any result
        async with places:
            return await work

    return await asyncio.gather(*map(one, works))
