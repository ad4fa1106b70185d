"""Ordinary users of a running Everturn, and what they notice while somebody else misbehaves.

They run in a process of their own, one request after another: turns that stream, and reads.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass
from itertools import cycle
from typing import Any, Final, Self
from urllib.parse import urlsplit
from uuid import uuid4

import psutil

from tests.load.client import LoadClient
from tests.load.samples import Request, Sample, spread
from tests.running_everturn.stack import ScriptedStack

Others = Callable[[str], AbstractAsyncContextManager[None]]
"""Lets ordinary users go on while an attack, named by the argument, runs."""

WORKERS: Final = ("worker-turns", "worker-tools")
_CHATS: Final = 4
_BEFORE: Final = 10
"""Rounds that are measured before the first attack."""


@dataclass(frozen=True, slots=True)
class Noticed:
    """What others noticed during one attack.

    Units: milliseconds at the 95th percentile until a turn's first token and for a read, and in
    `first_token_p50_ms` at the median; MiB resident, the largest that was seen.
    """

    attack: str
    rounds: int
    first_token_p50_ms: float
    first_token_ms: float
    read_ms: float
    api_mib: float
    workers_mib: float

    def as_dict(self) -> dict[str, Any]:
        """Return it for the report of a test, which travels between processes."""
        return asdict(self)


class Bystanders:
    """The users, and what they noticed before any attack and during the last one."""

    def __init__(self, everturn: ScriptedStack, client: LoadClient) -> None:
        self._everturn = everturn
        self._client = client
        self._rounds: Iterator[tuple[Request, ...]] = cycle(())
        self._port = urlsplit(everturn.api).port or 0
        self.before: Noticed
        self.last: Noticed

    @classmethod
    @asynccontextmanager
    async def of(cls, everturn: ScriptedStack) -> AsyncIterator[Self]:
        """Sign users up, and see how they fare while all is well."""
        client = await LoadClient.start()
        try:
            bystanders = cls(everturn, client)
            await bystanders._settle()
            yield bystanders
        finally:
            await client.stop()

    @asynccontextmanager
    async def during(self, attack: str) -> AsyncIterator[list[Noticed]]:
        """Go on chatting while the block runs; what was noticed is in the list after it.

        Errors: RuntimeError where one of their requests fails.
        """
        noticed: list[Noticed] = []
        over = asyncio.Event()
        chatting = asyncio.create_task(self._chat(attack, over))
        try:
            yield noticed
        finally:
            over.set()
            self.last = await chatting
            noticed.append(self.last)

    def resident_mib(self, *names: str) -> float:
        """Return the memory of these processes now."""
        pids = [self._everturn.stack.pid(name) for name in names]
        return sum(psutil.Process(pid).memory_info().rss for pid in pids if pid) / 2**20

    async def _settle(self) -> None:
        bodies = [
            {"email": f"{uuid4().hex}@example.com", "password": uuid4().hex} for _ in range(_CHATS)
        ]
        signed_up = await self._run([self._post("auth/signup", body=body) for body in bodies])
        tokens = [sample.data["accessToken"] for sample in signed_up]
        new = [self._post("chats", token=token, body={"title": "Calm"}) for token in tokens]
        chats = [sample.data["id"] for sample in await self._run(new)]
        self._rounds = cycle(
            [
                (
                    self._post(
                        f"chats/{chat}/messages",
                        token=token,
                        body={"content": "How are you?", "stream": True},
                    ),
                    Request(self._port, "/api/v1/chats", token=token),
                )
                for chat, token in zip(chats, tokens, strict=True)
            ]
        )
        for _ in range(2 * _CHATS):
            await self._run(next(self._rounds))
        self.before = await self._chat("none", rounds=_BEFORE)

    async def _chat(
        self, attack: str, over: asyncio.Event | None = None, *, rounds: int = 2
    ) -> Noticed:
        """Chat for so many rounds, and on until it is over."""
        turns: list[float] = []
        reads: list[float] = []
        api = workers = 0.0
        while len(turns) < rounds or (over and not over.is_set()):
            turn, read = await self._run(next(self._rounds))
            turns.append(turn.first_ms)
            reads.append(read.whole_ms)
            api = max(api, self.resident_mib("api"))
            workers = max(workers, self.resident_mib(*WORKERS))
        return Noticed(
            attack=attack,
            rounds=len(turns),
            first_token_p50_ms=spread(turns).p50,
            first_token_ms=spread(turns).p95,
            read_ms=spread(reads).p95,
            api_mib=api,
            workers_mib=workers,
        )

    def _post(self, path: str, *, body: dict[str, Any], token: str = "") -> Request:
        return Request(self._port, f"/api/v1/{path}", "POST", token, body)

    async def _run(self, requests: Sequence[Request]) -> list[Sample]:
        return await self._client.run(requests, concurrency=1)
