"""Reads by key that share queries."""

import asyncio
from collections.abc import Collection

import pytest

from services.database import DatabaseUnavailableError, GatheredReads


class Queries:
    """A table of squares whose queries end when they are let go."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.error: Exception | None = None
        self.go = asyncio.Event()
        self.reads = GatheredReads(self._read, max_keys=4)

    async def _read(self, keys: Collection[int]) -> dict[int, int]:
        self.asked.append(list(keys))
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return {key: key * key for key in keys if key >= 0}

    async def ask(self, *keys: int) -> list[asyncio.Task[int | None]]:
        tasks = [asyncio.create_task(self.reads.get(key)) for key in keys]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return tasks


async def test_what_is_asked_during_a_query_shares_the_next() -> None:
    queries = Queries()
    first = await queries.ask(1)
    others = await queries.ask(2, 3, -1, 1, 2)

    queries.go.set()

    assert await asyncio.gather(*first, *others) == [1, 4, 9, None, 1, 4]
    # The key 1 is asked again: its second caller may know of a change that the first query missed.
    assert queries.asked == [[1], [2, 3, -1, 1]]


async def test_a_query_is_bounded() -> None:
    queries = Queries()
    queries.go.set()

    tasks = await queries.ask(*range(10))

    assert await asyncio.gather(*tasks) == [key * key for key in range(10)]
    assert queries.asked == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


async def test_an_outage_is_told_to_all_who_wait_and_to_nobody_later() -> None:
    queries = Queries()
    tasks = [*await queries.ask(1), *await queries.ask(2)]
    queries.error = DatabaseUnavailableError()
    queries.go.set()

    told = await asyncio.gather(*tasks, return_exceptions=True)
    queries.error = None

    assert [type(error) for error in told] == [DatabaseUnavailableError] * 2
    assert queries.asked == [[1]]
    assert await queries.reads.get(3) == 9


async def test_a_caller_who_leaves_takes_nothing_from_others() -> None:
    queries = Queries()
    leaving, staying = await queries.ask(5, 5)

    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    queries.go.set()

    assert await staying == 25
