"""Ordinary users of a running Everturn, and what they notice while somebody else misbehaves.

They run in a process of their own, one request after another: turns that stream, and reads.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, Final, Self
from urllib.parse import urlsplit
from uuid import uuid4

import psutil

from tests.load.client import LoadClient, Request, Sample
from tests.running_everturn.stack import ScriptedStack

More = Callable[[], Awaitable[bool]]
"""Waits for the next round of the others, to repeat a short attack in it; False after enough."""
Others = Callable[..., AbstractAsyncContextManager[More]]
"""Lets ordinary users go on while an attack runs: see `Bystanders.during`."""

WORKERS: Final = ("worker-turns", "worker-tools")
ENOUGH: Final = 20
"""Rounds from which a 95th percentile is not the largest value."""
_CHATS: Final = 4


@dataclass(slots=True)
class Noticed:
    """What others noticed during attacks of one name.

    Units: milliseconds until a turn's first token, and for a read; MiB resident, the largest that
    was seen. `began_after` counts the groups of quiet rounds before the first attack.
    """

    first_tokens: list[float] = field(default_factory=list)
    reads: list[float] = field(default_factory=list)
    api_mib: float = 0.0
    workers_mib: float = 0.0
    began_after: int = 0

    @classmethod
    def joined(cls, several: Sequence[Self]) -> Self:
        """Return the rounds of several."""
        return cls(
            [first_ms for each in several for first_ms in each.first_tokens],
            [read_ms for each in several for read_ms in each.reads],
        )


class Bystanders:
    """The users, and what they noticed by the names of attacks.

    `quiet` are groups of rounds without an attack, as they were between attacks.
    """

    def __init__(self, everturn: ScriptedStack, client: LoadClient) -> None:
        self._everturn = everturn
        self._client = client
        self._rounds: Iterator[tuple[Request, ...]] = cycle(())
        self.resident_before: dict[tuple[str, ...], float] = {}
        self._over = asyncio.Event()
        self._begun = asyncio.Event()
        self._port = urlsplit(everturn.api).port or 0
        self.quiet: list[Noticed] = []
        self.noticed: defaultdict[str, Noticed] = defaultdict(
            lambda: Noticed(began_after=len(self.quiet))
        )

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
    async def during(self, attack: str, *, rounds: int = ENOUGH) -> AsyncIterator[More]:
        """Go on chatting while the block runs; what it yields ends after so many rounds.

        Attacks that share a row, by their name, need fewer rounds each.
        Errors: RuntimeError where one of their requests fails.
        """
        noticed = self.noticed[attack]
        until = len(noticed.first_tokens) + rounds
        chatting = asyncio.create_task(self._chat(noticed))

        async def more() -> bool:
            if chatting.done() or len(noticed.first_tokens) >= until:
                return False
            await self._begun.wait()
            return not chatting.done()

        try:
            yield more
        finally:
            self._over.set()
            await chatting

    async def go_on(self, rounds: int) -> None:
        """Chat for so many rounds while nothing else happens."""
        self.quiet.append(Noticed())
        for _ in range(rounds):
            await self._chat_once(self.quiet[-1])

    def calm_beside(self, noticed: Noticed) -> Noticed:
        """Return the quiet rounds just before and just after attacks: the machine may be busy."""
        return Noticed.joined(self.quiet[noticed.began_after - 1 : noticed.began_after + 1])

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
        try:
            while not self._over.is_set():
                self._begin()
                await self._chat_once(noticed)
        finally:
            self._begin()

    def _begin(self) -> None:
        self._begun.set()
        self._begun = asyncio.Event()

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
