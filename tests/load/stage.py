"""The subjects of measurement: stacks with their users, the floor, the model and the load."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import cycle, islice
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import httpx
from temporalio.client import Client

from tests.load.client import LoadClient, Request, Sample
from tests.load.comparison import thinned
from tests.load.machine import CpuTimes
from tests.load.model import ALL_GATES, Play
from tests.load.stacks import HERE, Checkout, Stack, open_stack, run_program

_USERS: Final = 32
_DELAYS: Final = 2_000
_SETTLED_S: Final = 120.0
_PAUSE_S: Final = 0.2
_UNSETTLED: Final = (
    "ExecutionStatus = 'Running' AND "
    "WorkflowType IN ('ChatTurn', 'AfterTurn', 'ExtractMemories', 'TitleChat')"
)


class Shape(StrEnum):
    """How the processes share the work."""

    APART = "workers apart"
    EAGER = "eager worker in the API"


@dataclass(frozen=True, slots=True)
class Chat:
    """A new chat and its owner's token."""

    id: str
    token: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Turns that were measured together. Units: `held_mb`, where it was read, in megabytes.

    `cpu` is what the side used until the last answer ended, `whole_cpu` until all was done that
    the turns caused; `delays_ms` how long tokens were under way, thinned out.
    """

    samples: Sequence[Sample]
    cpu: CpuTimes
    whole_cpu: CpuTimes
    held_mb: float = 0.0
    delays_ms: Sequence[float] = field(init=False)

    def __post_init__(self) -> None:
        """Thin the delays out: a percentile needs no more."""
        delays = [ms for sample in self.samples for ms in sample.delays_ms]
        object.__setattr__(self, "delays_ms", thinned(delays, _DELAYS))


class Ground:
    """What all stacks share: the model, the floor and the load's client."""

    def __init__(self, *, client: LoadClient, model: int, floor: tuple[int, int]) -> None:
        self.client = client
        self.model_url: Final = f"http://127.0.0.1:{model}"
        self._floor_port, self._floor_pid = floor

    @property
    def settings(self) -> dict[str, str]:
        """The settings of a stack that uses the model."""
        return {"ANTHROPIC_BASE_URL": self.model_url, "ANTHROPIC_API_KEY": "bench"}

    def floor_request(self, play: Play) -> Request:
        """Return the request that has a message answered by the floor."""
        return Request(self._floor_port, "/messages", "POST", body={"content": play.message})

    async def floor_batch(self, play: Play, count: int, *, concurrency: int) -> Batch:
        """Send the same messages to the floor."""
        request = self.floor_request(play)
        before = CpuTimes.now({"floor": self._floor_pid})
        samples = await self.client.run([request] * count, concurrency=concurrency)
        used = CpuTimes.now({"floor": self._floor_pid}).since(before)
        return Batch(samples, used, used)

    async def start_over(self) -> None:
        """Let nothing wait for what a section left that failed."""
        await self.client.kill()
        self.client = await LoadClient.start()
        await self.release(ALL_GATES)

    async def release(self, gate: str) -> None:
        """Let the answers go on that a message holds."""
        async with httpx.AsyncClient(base_url=self.model_url, trust_env=False) as http:
            (await http.post(f"/release/{gate}")).raise_for_status()


@asynccontextmanager
async def open_ground() -> AsyncIterator[Ground]:
    """Run the model, the floor and the client."""
    async with run_program("tests.load.model") as (model, _):
        direct = {"ANTHROPIC_BASE_URL": f"http://127.0.0.1:{model}", "ANTHROPIC_API_KEY": "bench"}
        async with run_program("tests.load.floor", **direct) as floor:
            ground = Ground(client=await LoadClient.start(), model=model, floor=floor)
            try:
                yield ground
            finally:
                await ground.client.kill()


class Stage:
    """A stack in one shape with its users, ready to be measured."""

    def __init__(
        self,
        *,
        shape: Shape,
        stack: Stack,
        ground: Ground,
        temporal: Client,
        database: asyncpg.Connection,
        title: str | None,
    ) -> None:
        self.shape = shape
        self.stack = stack
        self.ground = ground
        self.temporal = temporal
        self._database = database
        self._chat = {} if title is None else {"title": title}
        self._tokens: list[str] = []

    @property
    def api_port(self) -> int:
        """The API's port."""
        return port_of(self.stack.api)

    async def sign_up(self) -> None:
        """Create the users whose turns are measured: no turn waits for another user's."""
        path = "/api/v1/auth/signup"
        requests = [
            Request(self.api_port, path, "POST", body=_credentials()) for _ in range(_USERS)
        ]
        samples = await self.ground.client.run(requests, concurrency=2)
        self._tokens = [sample.data["accessToken"] for sample in samples]

    def chat_requests(self, count: int) -> list[Request]:
        """Return the requests that create chats, of one user after another."""
        return [
            Request(self.api_port, "/api/v1/chats", "POST", token, self._chat)
            for token in islice(cycle(self._tokens), count)
        ]

    async def make_chats(self, count: int) -> list[Chat]:
        """Create chats."""
        requests = self.chat_requests(count)
        samples = await self.ground.client.run(requests, concurrency=8)
        return [
            Chat(sample.data["id"], request.token)
            for sample, request in zip(samples, requests, strict=True)
        ]

    def message(self, chat: Chat, play: Play, *, port: int | None = None) -> Request:
        """Return the request that sends a message and streams its answer."""
        path = f"/api/v1/chats/{chat.id}/messages"
        body = {"content": play.message, "stream": True}
        return Request(port or self.api_port, path, "POST", chat.token, body)

    async def batch(
        self, play: Play, count: int, *, concurrency: int, held_after_s: float | None = None
    ) -> Batch:
        """Run turns, each in a new chat, and wait until nothing is left of what they caused.

        `held_after_s` is when the memory is read.
        """
        requests = [self.message(chat, play) for chat in await self.make_chats(count)]
        before = self.stack.cpu()
        running = asyncio.create_task(self.ground.client.run(requests, concurrency=concurrency))
        held_mb = 0.0
        if held_after_s is not None:
            await asyncio.wait({running}, timeout=held_after_s)
            held_mb = await asyncio.to_thread(self.stack.own_memory_mb)
        samples = await running
        used = self.stack.cpu().since(before)
        await self.settle()
        return Batch(samples, used, self.stack.cpu().since(before), held_mb)

    async def hold(self, count: int) -> tuple[str, list[Chat], list[Sample]]:
        """Begin turns whose answers wait behind their first token; return the gate's name."""
        gate = uuid4().hex
        chats = await self.make_chats(count)
        play = Play(first_s=0.2, tokens=2, hold=gate)
        opened = await self.ground.client.open([self.message(chat, play) for chat in chats])
        return gate, chats, opened

    async def settle(self) -> None:
        """Return when no turn runs, and no memory or title is due after earlier ones."""
        async with asyncio.timeout(_SETTLED_S):
            # No event says so, and each question costs CPU that is counted: they are few.
            while await self._is_busy():  # noqa: ASYNC110
                await asyncio.sleep(_PAUSE_S)

    async def _is_busy(self) -> bool:
        running = await self.temporal.count_workflows(_UNSETTLED)
        return bool(running.count or await self._count_due())

    async def _count_due(self) -> int:
        """Return how many works wait; earlier versions have them in Temporal alone."""
        if await self._database.fetchval("SELECT to_regclass('due_works')") is None:
            return 0
        due: int = await self._database.fetchval("SELECT count(*) FROM due_works")
        return due


@asynccontextmanager
async def open_stage(
    folder: Path,
    ground: Ground,
    shape: Shape = Shape.APART,
    *,
    checkout: Checkout = HERE,
    as_in_production: bool = False,
    title: str | None = None,
    **settings: str,
) -> AsyncIterator[Stage]:
    """Open a stack in this shape, with the users signed up.

    Without a `title` of its own, a model names each chat after its first turn.
    """
    async with open_stack(
        folder,
        checkout=checkout,
        as_in_production=as_in_production,
        settings={
            "EVERTURN_EAGER_WORKER": str(shape is Shape.EAGER),
            **ground.settings,
            **settings,
        },
    ) as stack:
        temporal = await Client.connect(stack.temporal)
        database = await asyncpg.connect(stack.superuser)
        try:
            stage = Stage(
                shape=shape,
                stack=stack,
                ground=ground,
                temporal=temporal,
                database=database,
                title=title,
            )
            await stage.sign_up()
            yield stage
        finally:
            await database.close()


def _credentials() -> dict[str, str]:
    return {"email": f"{uuid4().hex}@example.com", "password": uuid4().hex}


def port_of(origin: str) -> int:
    """Return the port of an origin. Errors: ValueError."""
    port = urlsplit(origin).port
    if port is None:
        raise ValueError(f"{origin} has no port")
    return port
