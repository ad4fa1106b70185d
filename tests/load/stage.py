"""The subject of measurement: a stack like that of `everturn dev`, the floor, and the load."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from io import StringIO
from itertools import cycle, islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
from rich.console import Console

from services.settings import Settings
from tests.load.client import LoadClient
from tests.load.cpu import CpuTimes
from tests.load.samples import Request, Sample
from tests.running_everturn.process import EVERTURN
from workers.embedded.logs import Terminal
from workers.embedded.stack import Commands, DevelopmentStack

PROCESSES = ("postgres", "valkey", "temporal", "demo-model", "api", "worker-turns", "worker-tools")
_USERS = 32
MODEL = "demo-model"
"""The process that stands for the provider; no side's own."""


_COMMANDS = Commands(
    # As in production, where nothing is forked from a process that has imported everything.
    api=(EVERTURN, "api"),
    workers={
        "worker-turns": (EVERTURN, "worker", "--queue", "turns"),
        "worker-tools": (EVERTURN, "worker", "--queue", "tools", "--queue", "background"),
    },
    demo_model=(sys.executable, "-m", "tests.fakes.scripted_model"),
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


class Stage:
    """One shape of the stack, ready to be measured."""

    def __init__(
        self,
        *,
        shape: Shape,
        stack: DevelopmentStack,
        client: LoadClient,
        floor_port: int,
        floor_pid: int,
    ) -> None:
        self.shape = shape
        self.stack = stack
        self.client = client
        self.floor_port = floor_port
        self._floor_pid = floor_pid
        self._tokens: list[str] = []

    @property
    def api_port(self) -> int:
        """The API's port."""
        return _port(self.stack.addresses.api)

    async def sign_up(self) -> None:
        """Create the users whose turns are measured: no turn waits for another user's."""
        path = "/api/v1/auth/signup"
        requests = [
            Request(self.api_port, path, "POST", body=_credentials()) for _ in range(_USERS)
        ]
        samples = await self.client.run(requests, concurrency=2)
        self._tokens = [sample.data["accessToken"] for sample in samples]

    async def make_chats(self, count: int) -> list[Chat]:
        """Make new chats, of one user after another."""
        requests = self.chat_requests(count)
        samples = await self.client.run(requests, concurrency=8)
        return [
            Chat(sample.data["id"], request.token)
            for sample, request in zip(samples, requests, strict=True)
        ]

    def chat_requests(self, count: int) -> list[Request]:
        """Return the requests that make new chats."""
        return [
            Request(self.api_port, "/api/v1/chats", "POST", token, {"title": "Measured"})
            for token in islice(cycle(self._tokens), count)
        ]

    async def turns(
        self, content: str, count: int, *, concurrency: int, spread_s: float = 0
    ) -> list[Sample]:
        """Run turns, each in a new chat."""
        chats = await self.make_chats(count)
        requests = [self.message(chat, content) for chat in chats]
        return await self.client.run(requests, concurrency=concurrency, spread_s=spread_s)

    async def floor_turns(
        self, content: str, count: int, *, concurrency: int, spread_s: float = 0
    ) -> list[Sample]:
        """Send the same messages to the floor."""
        request = Request(self.floor_port, "/messages", "POST", body={"content": content})
        return await self.client.run([request] * count, concurrency=concurrency, spread_s=spread_s)

    def message(self, chat: Chat, content: str) -> Request:
        """Return the request that sends a message and streams its answer."""
        path = f"/api/v1/chats/{chat.id}/messages"
        body = {"content": content, "stream": True}
        return Request(self.api_port, path, "POST", chat.token, body)

    async def script(self, **script: Any) -> None:  # noqa: ANN401 -- the fields of a script
        """Queue a script of the model in place of all others."""
        async with self._control() as control:
            await control.delete("/demo/scripts")
            (await control.post("/demo/scripts", json=script)).raise_for_status()

    async def add_script(self, **script: Any) -> None:  # noqa: ANN401 -- the fields of a script
        """Queue a script of the model behind those that wait."""
        async with self._control() as control:
            (await control.post("/demo/scripts", json=script)).raise_for_status()

    async def release(self, gate: str) -> None:
        """Let the answers go on that a script holds."""
        async with self._control() as control:
            (await control.post(f"/demo/release/{gate}")).raise_for_status()

    def cpu(self) -> CpuTimes:
        """Read the CPU of every process of the stack."""
        pids = {name: self.stack.pid(name) for name in PROCESSES}
        return CpuTimes.now({name: pid for name, pid in pids.items() if pid is not None})

    def floor_cpu(self) -> CpuTimes:
        """Read the CPU of the floor, and of the model."""
        return CpuTimes.now({"floor": self._floor_pid, MODEL: self.stack.pid(MODEL) or 0})

    def client_cpu(self) -> CpuTimes:
        """Read the CPU of the load client."""
        return CpuTimes.now({"client": self.client.pid})

    def _control(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.stack.addresses.model, trust_env=False)


@asynccontextmanager
async def open_stack(directory: Path, **settings: str) -> AsyncIterator[DevelopmentStack]:
    """Open a stack like that of `everturn dev`, with the scripted model and without rate limits."""
    with _environment(EVERTURN_RATE_LIMITS="false", ANTHROPIC_API_KEY="", **settings):
        stack = DevelopmentStack(
            directory,
            settings=Settings(api_port=0),
            terminal=Terminal(Console(file=StringIO())),
            commands=_COMMANDS,
        )
        async with stack:
            yield stack


@asynccontextmanager
async def open_stage(directory: Path, shape: Shape, **settings: str) -> AsyncIterator[Stage]:
    """Open everything, with the users signed up."""
    async with (
        open_stack(
            directory,
            **settings,
            EVERTURN_EAGER_WORKER=str(shape is Shape.EAGER),
            # Where the webhooks of the bench are.
            EVERTURN_ALLOWED_PRIVATE_HOSTS="127.0.0.1",
        ) as stack,
        _floor(stack.addresses.model) as (floor_port, floor_pid),
    ):
        client = await LoadClient.start()
        try:
            stage = Stage(
                shape=shape,
                stack=stack,
                client=client,
                floor_port=floor_port,
                floor_pid=floor_pid,
            )
            await stage.sign_up()
            yield stage
        finally:
            await client.stop()


@asynccontextmanager
async def _floor(model: str) -> AsyncIterator[tuple[int, int]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    direct = {"ANTHROPIC_BASE_URL": model, "ANTHROPIC_API_KEY": "demo", "NO_PROXY": "127.0.0.1"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.load.floor", str(port), env={**os.environ, **direct}
    )
    try:
        await _accepting(port)
        yield port, process.pid
    finally:
        process.terminate()
        await process.wait()


async def _accepting(port: int) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            return


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _credentials() -> dict[str, str]:
    return {"email": f"{uuid4().hex}@example.com", "password": uuid4().hex}


def _port(origin: str) -> int:
    port = urlsplit(origin).port
    if port is None:
        raise ValueError(f"{origin} has no port")
    return port
