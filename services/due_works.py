"""Works that are due after turns: stored with the end of a turn, done by batches, then deleted.

The table is the queue. A work is claimed for a few seconds, which its claim prolongs while it is
under way; what a process leaves behind that died is due again once its claim has run out.

    works_due, STORE_DUE   what is due after a turn, and the statement that stores it
    DueWorks               claims works, fairly over users, and stores how they ended
    Batch               does what is due, several works at a time, until nothing is
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import UUID, uuid4

import asyncpg

from schema.actors import SERVICE
from schema.after_turn import BatchOutcome, WorkOutcome
from schema.ids import ChatId, TurnId, UserId
from schema.names import Work
from schema.turns import TurnReference
from services.database import Database, DatabaseUnavailableError
from services.shielding import shielded, until_stored

MOST_FAILURES: Final = 5
"""How often a work is tried that fails for a defect, or whose process dies."""

LONGEST: Final = timedelta(days=1)
"""How long outages are waited for; then the turn is old news."""

AT_ONCE: Final[Mapping[Work, int]] = {
    Work.TITLE_CHAT: 8,
    Work.EXTRACT_MEMORIES: 16,
    Work.COMPACT_CHAT: 2,
}
"""How many works a batch does at a time. Each kind has its own room: none waits for another."""

_CLAIM_LENGTH: Final = timedelta(seconds=15)
_RENEWAL_S: Final = 5.0
_POLL_S: Final = 0.5
_LINGER_S: Final = 5.0
"""A batch that ended with its last work would be started again for the next one: each start costs
the engine as much as a turn."""
_TOGETHER_S: Final = 0.05
"""What ends within it is stored, and replaced, in one transaction."""
_RELEASE_TIMEOUT_S: Final = 2.0
_LEAST_PAUSE: Final = timedelta(seconds=2)
_LONGEST_PAUSE: Final = timedelta(minutes=2)

# Of the user whose turn it is. Where they don't want to be learnt from, no memory is due.
STORE_DUE: Final = """
    INSERT INTO due_works (work, user_id, turn_id)
    SELECT work, user_id, id FROM turns CROSS JOIN unnest({works}) AS work
    WHERE id = {turn_id} AND NOT (work = 'extract_memories' AND EXISTS (
        SELECT FROM preferences WHERE preferences.user_id = turns.user_id
        AND NOT (extract_memories AND use_memories)))
"""
"""Stores works of a turn, as its user; a part of the statement that ends it."""

# Each user's place counts their works that are under way: one with 500 due gets no second place
# before others have their first. A work whose claim ran out was left by a process that died.
_CLAIM: Final = """
WITH room AS (
    SELECT * FROM unnest($2::text[], $3::int[]) AS room (work, most)
), places AS (
    SELECT work, user_id, turn_id, most, due_at <= now() AS is_due,
           count(*) FILTER (WHERE claim IS NOT NULL AND due_at > now()) OVER mine
           + count(*) FILTER (WHERE due_at <= now()) OVER (mine ORDER BY turn_id) AS place
    FROM due_works JOIN room USING (work)
    WINDOW mine AS (PARTITION BY work, user_id)
), chosen AS (
    SELECT work, user_id, turn_id FROM (
        SELECT places.*, row_number() OVER (PARTITION BY work ORDER BY place, turn_id) AS rank
        FROM places WHERE is_due
    ) AS ranked WHERE rank <= most
), free AS (
    SELECT work, user_id, turn_id FROM due_works JOIN chosen USING (work, user_id, turn_id)
    WHERE due_at <= now() FOR UPDATE OF due_works SKIP LOCKED
)
UPDATE due_works AS claimed SET
    claim = $1, due_at = now() + $4::interval, failures = failures + (claim IS NOT NULL)::int
FROM free JOIN turns ON turns.id = free.turn_id
WHERE (claimed.work, claimed.user_id, claimed.turn_id) = (free.work, free.user_id, free.turn_id)
RETURNING claimed.work, claimed.user_id, claimed.turn_id, claimed.failures,
          now() - claimed.created_at AS age, turns.chat_id, turns.model
"""
_RENEW: Final = "UPDATE due_works SET due_at = now() + $2::interval WHERE claim = $1"
# Another batch may have done it: there is no more to do.
_DELETE: Final = """
DELETE FROM due_works USING unnest($1::text[], $2::uuid[]) AS done (work, turn_id)
WHERE due_works.work = done.work AND due_works.turn_id = done.turn_id
"""
# One whose claim ran out meanwhile is another's.
_POSTPONE: Final = """
UPDATE due_works SET claim = NULL, due_at = now() + pause, failures = failures + later.failed
FROM unnest($2::text[], $3::uuid[], $4::interval[], $5::int[])
     AS later (work, turn_id, pause, failed)
WHERE due_works.work = later.work AND due_works.turn_id = later.turn_id AND claim = $1
"""
_RELEASE: Final = "UPDATE due_works SET claim = NULL, due_at = now() WHERE claim = $1"
_WAITING: Final = """
SELECT work, count(*) AS waiting, count(*) FILTER (WHERE due_at <= now()) AS due,
       extract(epoch FROM now() - min(created_at))::float8 AS oldest_s
FROM due_works GROUP BY work
"""


def works_due(
    turn: asyncpg.Record, works: frozenset[Work], *, is_untitled: bool
) -> tuple[Work, ...]:
    """Return which works are due after a turn that is completed, by its row and its chat's."""
    is_due = {
        Work.EXTRACT_MEMORIES: True,
        Work.TITLE_CHAT: is_untitled,
        Work.COMPACT_CHAT: "historyTokens" in (turn["prompt"] or {}),
    }
    return tuple(work for work in Work if is_due[work] and work in works)


class DueWork(NamedTuple):
    """A work that is claimed. `failures` are attempts that a defect or a dead process ended."""

    work: Work
    turn: TurnReference
    failures: int
    age: timedelta

    @property
    def is_hopeless(self) -> bool:
        """Whether it has been tried often, or for long, enough."""
        return self.failures >= MOST_FAILURES or self.age > LONGEST

    @property
    def is_lost(self) -> bool:
        """Whether it can't even be given up."""
        return self.failures >= 2 * MOST_FAILURES


class Done(NamedTuple):
    """A work that has ended; `failure` is why it was given up, if it was."""

    outcome: WorkOutcome
    failure: str | None = None


class Postponed(NamedTuple):
    """A work whose attempt failed; a defect counts, and is not tried for ever."""

    failure: str
    pause: timedelta | None = None
    is_defect: bool = False
    is_final: bool = False


Ended: TypeAlias = Done | Postponed


class WaitingWorks(NamedTuple):
    """Works of a kind that are not done, and those that can be claimed. Units: seconds."""

    work: str
    waiting: int
    due: int
    oldest_s: float


class DueWorks:
    """The queue, as the service. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def waiting(self) -> list[WaitingWorks]:
        """Return how many works wait, by kind."""
        async with self._database.statements(SERVICE) as connection:
            return [WaitingWorks(*row) for row in await connection.fetch(_WAITING)]

    async def exchange(
        self, claim: UUID, ended: Sequence[tuple[DueWork, Ended]], room: Mapping[Work, int]
    ) -> list[DueWork]:
        """Store how claimed works ended, and claim others, at most `room` of each kind."""
        done = [due for due, end in ended if isinstance(end, Done)]
        later = [(due, end) for due, end in ended if isinstance(end, Postponed)]
        async with self._database.statements(SERVICE) as connection:
            if done:
                await connection.execute(_DELETE, *_columns(done))
            if later:
                await connection.execute(
                    _POSTPONE,
                    claim,
                    *_columns([due for due, _ in later]),
                    [_pause(due, end) for due, end in later],
                    [int(end.is_defect) for _, end in later],
                )
            if not room:
                return []
            claimed = await connection.fetch(
                _CLAIM, claim, list(room), list(room.values()), _CLAIM_LENGTH
            )
        return [_due_work(row) for row in claimed]

    async def renew(self, claim: UUID) -> None:
        """Prolong a claim whose works are under way."""
        async with self._database.statements(SERVICE) as connection:
            await connection.execute(_RENEW, claim, _CLAIM_LENGTH)

    async def release(self, claim: UUID) -> None:
        """Let others have at once what was claimed."""
        async with self._database.statements(SERVICE) as connection:
            await connection.execute(_RELEASE, claim)


class Batch:
    """Does what is due, several works at a time, until nothing has been due for a while.

    `attempt` tries a work once, and raises nothing but a cancellation. `before` is what earlier
    attempts at this batch did.
    """

    def __init__(
        self,
        works: DueWorks,
        attempt: Callable[[DueWork], Coroutine[Any, Any, Ended]],
        before: BatchOutcome,
    ) -> None:
        self._works = works
        self._attempt = attempt
        self._claim = uuid4()
        self._running: dict[asyncio.Task[Ended], DueWork] = {}
        self._ended: list[tuple[DueWork, Ended]] = []
        self._done, self._stored = Counter(before.done), Counter(before.stored)
        self._problems, self._failures = Counter(before.problems), Counter(before.failures)
        self._cost_usd = before.cost_usd

    @property
    def outcome(self) -> BatchOutcome:
        """What was done so far."""
        return BatchOutcome(
            done=dict(self._done),
            stored=dict(self._stored),
            problems=dict(self._problems),
            failures=dict(self._failures),
            cost_usd=self._cost_usd,
        )

    async def run(self, *, is_ending: Callable[[], bool]) -> None:
        """Do works, and claim no more once `is_ending`. A cancellation releases what is claimed."""
        renewing = asyncio.create_task(self._renew())
        try:
            await self._run(is_ending)
        except BaseException:
            await shielded(self._leave())
            raise
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)

    async def _run(self, is_ending: Callable[[], bool]) -> None:
        clock = asyncio.get_running_loop().time
        idle_since = clock()
        while True:
            room = {} if is_ending() else self._room()
            if room or self._ended:
                for due in await until_stored(partial(self._exchange, room)):
                    self._running[asyncio.create_task(self._attempt(due))] = due
            if self._running:
                await self._wait()
                idle_since = clock()
            elif is_ending() or clock() - idle_since > _LINGER_S:
                return
            else:
                await asyncio.sleep(_POLL_S)

    def _room(self) -> dict[Work, int]:
        """Return how many more works of each kind there is room for."""
        running = Counter(due.work for due in self._running.values())
        return {
            work: most - running[work] for work, most in AT_ONCE.items() if most > running[work]
        }

    async def _exchange(self, room: Mapping[Work, int]) -> list[DueWork]:
        claimed = await self._works.exchange(self._claim, self._ended, room)
        self._ended = []
        return claimed

    async def _wait(self) -> None:
        """Wait until a work ends, but not for longer than others may have become due."""
        ended, _ = await asyncio.wait(
            self._running, timeout=_POLL_S, return_when=asyncio.FIRST_COMPLETED
        )
        if ended:
            ended, _ = await asyncio.wait(self._running, timeout=_TOGETHER_S)
        for task in ended:
            due = self._running.pop(task)
            self._ended.append((due, task.result()))
            self._count(due.work, task.result())

    def _count(self, work: Work, end: Ended) -> None:
        if end.failure is not None:
            self._failures[end.failure] += 1
        if isinstance(end, Done):
            self._done[work] += 1
            self._stored[work] += end.outcome.stored
            self._cost_usd += end.outcome.cost_usd
            if end.outcome.problem is not None:
                self._problems[end.outcome.problem] += 1

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(_RENEWAL_S)
            if self._running:
                with suppress(DatabaseUnavailableError):
                    await self._works.renew(self._claim)

    async def _leave(self) -> None:
        """Stop what is under way, store what has ended, and let others have the rest at once."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)
        # Without the database the claim runs out by itself.
        with suppress(DatabaseUnavailableError, TimeoutError):
            async with asyncio.timeout(_RELEASE_TIMEOUT_S):
                await self._exchange({})
                await self._works.release(self._claim)


def _due_work(row: asyncpg.Record) -> DueWork:
    turn = TurnReference(
        turn_id=TurnId(row["turn_id"]),
        chat_id=ChatId(row["chat_id"]),
        user_id=UserId(row["user_id"]),
        model=row["model"],
    )
    return DueWork(Work(row["work"]), turn, row["failures"], row["age"])


def _columns(works: Sequence[DueWork]) -> tuple[list[Work], list[TurnId]]:
    return [due.work for due in works], [due.turn.turn_id for due in works]


def _pause(due: DueWork, end: Postponed) -> timedelta:
    """Return how long to wait: about as long as the work has waited so far, or as is asked for."""
    return max(min(due.age, _LONGEST_PAUSE), _LEAST_PAUSE, end.pause or timedelta())
