"""The TTL cache: how long it keeps results, and that none outlives an invalidation."""

import asyncio
from dataclasses import dataclass, field

from services.auth.ttl_cache import AsyncTtlCache

LIFETIME_S = 5.0


@dataclass
class Source:
    """The source of values, with a clock that stands still until it is set."""

    things: dict[str, str] = field(default_factory=dict)
    now: float = 0.0
    times_read: int = 0
    reading: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    def cache(self) -> AsyncTtlCache[str, str]:
        return AsyncTtlCache(self.read, max_size=10, lifetime_s=LIFETIME_S, timer=lambda: self.now)

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


async def test_a_cached_value_is_not_read_again() -> None:
    source = source_of(ada="user")
    cache = source.cache()

    assert [await cache.get("ada") for _ in range(3)] == ["user"] * 3
    assert source.times_read == 1


async def test_absence_is_not_cached() -> None:
    source = source_of()
    cache = source.cache()
    before = await cache.get("ada")

    source.things["ada"] = "user"

    assert (before, await cache.get("ada")) == (None, "user")


async def test_a_result_in_constant_use_expires_all_the_same() -> None:
    source = source_of(ada="admin")
    cache = source.cache()
    await cache.get("ada")
    source.things["ada"] = "user"

    seen = []
    for source.now in (2.0, 4.0, 6.0):
        seen.append(await cache.get("ada"))

    assert seen == ["admin", "admin", "user"]


async def test_an_invalidated_key_is_read_again_and_others_are_not() -> None:
    source = source_of(ada="admin", bob="admin")
    cache = source.cache()
    for name in ("ada", "bob"):
        await cache.get(name)
    source.things = {"ada": "user", "bob": "user"}

    cache.invalidate("ada")
    one_forgotten = [await cache.get(name) for name in ("ada", "bob")]
    cache.invalidate_all()
    all_forgotten = [await cache.get(name) for name in ("ada", "bob")]

    assert (one_forgotten, all_forgotten) == (["user", "admin"], ["user", "user"])


async def test_a_read_from_before_a_change_is_not_cached_after_it() -> None:
    source = Source({"ada": "admin"})
    cache = source.cache()
    asked = asyncio.create_task(cache.get("ada"))
    await source.reading.wait()

    source.things["ada"] = "user"
    cache.invalidate("ada")
    source.may_answer.set()

    assert await asked == "admin"
    assert await cache.get("ada") == "user"
