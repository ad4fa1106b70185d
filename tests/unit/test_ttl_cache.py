"""What is remembered for moments: how long, and that a change is not outlived."""

import asyncio
from dataclasses import dataclass, field

from services.auth.ttl_cache import AsyncTtlCache

LIFETIME_S = 5.0


@dataclass
class Source:
    """Where things are read, at a time that stands still until it is set."""

    things: dict[str, str] = field(default_factory=dict)
    now: float = 0.0
    times_read: int = 0
    reading: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    def remembered(self) -> AsyncTtlCache[str, str]:
        return AsyncTtlCache(self.read, most=10, lifetime_s=LIFETIME_S, timer=lambda: self.now)

    async def read(self, key: str) -> str | None:
        self.times_read += 1
        found = self.things.get(key)
        self.reading.set()
        await self.may_answer.wait()
        return found


def source_of(**things: str) -> Source:
    source = Source(things)
    source.may_answer.set()
    return source


async def test_what_was_read_is_not_read_again() -> None:
    source = source_of(ada="user")
    remembered = source.remembered()

    assert [await remembered.of("ada") for _ in range(3)] == ["user"] * 3
    assert source.times_read == 1


async def test_that_there_is_nothing_is_not_remembered() -> None:
    source = source_of()
    remembered = source.remembered()
    before = await remembered.of("ada")

    source.things["ada"] = "user"

    assert (before, await remembered.of("ada")) == (None, "user")


async def test_what_is_needed_again_and_again_is_read_anew_all_the_same() -> None:
    source = source_of(ada="admin")
    remembered = source.remembered()
    await remembered.of("ada")
    source.things["ada"] = "user"

    seen = []
    for source.now in (2.0, 4.0, 6.0):
        seen.append(await remembered.of("ada"))

    assert seen == ["admin", "admin", "user"]


async def test_what_is_forgotten_is_read_anew_and_the_rest_is_not() -> None:
    source = source_of(ada="admin", bob="admin")
    remembered = source.remembered()
    for name in ("ada", "bob"):
        await remembered.of(name)
    source.things = {"ada": "user", "bob": "user"}

    remembered.forget("ada")
    one_forgotten = [await remembered.of(name) for name in ("ada", "bob")]
    remembered.forget_all()
    all_forgotten = [await remembered.of(name) for name in ("ada", "bob")]

    assert (one_forgotten, all_forgotten) == (["user", "admin"], ["user", "user"])


async def test_what_was_read_before_a_change_is_not_remembered_after_it() -> None:
    source = Source({"ada": "admin"})
    remembered = source.remembered()
    asked = asyncio.create_task(remembered.of("ada"))
    await source.reading.wait()

    source.things["ada"] = "user"
    remembered.forget("ada")
    source.may_answer.set()

    assert await asked == "admin"
    assert await remembered.of("ada") == "user"
