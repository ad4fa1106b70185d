"""Ordinary users of a running Everturn, and what they notice while somebody else misbehaves.

They run in a process of their own, one request after another: turns that stream, and reads.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, Final, Self
from urllib.parse import urlsplit
from uuid import uuid4

import psutil

from tests.load.client import LoadClient
from tests.load.samples import Request, Sample
from tests.running_everturn.stack import ScriptedStack

More = Callable[[], bool]
"""Says whether a short attack is to be repeated: too few rounds were measured during it."""
Others = Callable[[str], AbstractAsyncContextManager[More]]
"""Lets ordinary users go on while an attack, named by the argument, runs."""

WORKERS: Final = ("worker-turns", "worker-tools")
QUIET: Final = "none"
ENOUGH: Final = 12
"""Rounds from which a percentile is more than the largest value."""
_CHATS: Final = 4
_LOOKS_EVERY_S: Final = 0.01


@dataclass(slots=True)
class Noticed:
    """What others noticed during attacks of one name.

    Units: milliseconds until a turn's first token, for a read, and for which the test's own
    process, where the attack and the model are, stood still at most; MiB resident, the largest
    that was seen.
    """

    first_tokens: list[float] = field(default_factory=list)
    reads: list[float] = field(default_factory=list)
    stalled_ms: float = 0.0
    api_mib: float = 0.0
    workers_mib: float = 0.0


class Bystanders:
    """The users, and what they noticed by the names of attacks, `QUIET` where there was none."""

    def __init__(self, everturn: ScriptedStack, client: LoadClient) -> None:
        self._everturn = everturn
        self._client = client
        self._rounds: Iterator[tuple[Request, ...]] = cycle(())
        self.resident_before: dict[tuple[str, ...], float] = {}
        self._over = asyncio.Event()
        self._port = urlsplit(everturn.api).port or 0
        self.noticed: defaultdict[str, Noticed] = defaultdict(Noticed)

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
    async def during(self, attack: str) -> AsyncIterator[More]:
        """Go on chatting while the block runs.

        Errors: RuntimeError where one of their requests fails.
        """
        noticed = self.noticed[attack]
        chatting = asyncio.create_task(self._chat(noticed))
        watching = asyncio.create_task(_watch_own_loop(noticed))
        try:
            yield lambda: len(noticed.first_tokens) < ENOUGH and not chatting.done()
        finally:
            watching.cancel()
            self._over.set()
            await chatting

    async def go_on(self, rounds: int) -> None:
        """Chat for so many rounds while nothing else happens."""
        for _ in range(rounds):
            await self._chat_once(self.noticed[QUIET])

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
        for _ in range(4 * _CHATS):
            await self._run(next(self._rounds))
        await self.go_on(ENOUGH)
        self.resident_before = {names: self.resident_mib(*names) for names in (("api",), WORKERS)}

    async def _chat(self, noticed: Noticed) -> None:
        self._over.clear()
        while not self._over.is_set():
            await self._chat_once(noticed)

    async def _chat_once(self, noticed: Noticed) -> None:
        turn, read = await self._run(next(self._rounds))
        noticed.first_tokens.append(turn.first_ms)
        noticed.reads.append(read.whole_ms)
        noticed.api_mib = max(noticed.api_mib, self.resident_mib("api"))
        noticed.workers_mib = max(noticed.workers_mib, self.resident_mib(*WORKERS))

    def _post(self, path: str, *, body: dict[str, Any], token: str = "") -> Request:
        return Request(self._port, f"/api/v1/{path}", "POST", token, body)

    async def _run(self, requests: Sequence[Request]) -> list[Sample]:
        return await self._client.run(requests, concurrency=1)


async def _watch_own_loop(noticed: Noticed) -> None:
    loop = asyncio.get_running_loop()
    while True:
        began = loop.time()
        await asyncio.sleep(_LOOKS_EVERY_S)
        late_ms = 1000 * (loop.time() - began - _LOOKS_EVERY_S)
        noticed.stalled_ms = max(noticed.stalled_ms, late_ms)
