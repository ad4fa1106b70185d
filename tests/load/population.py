"""Fills a database with people, conversations, memories and knowledge of real size.

    python -m tests.load.population postgresql://superuser@host/database [--scale 0.1]

Generated from a seed: the same rows every time. Units: at scale 1, 10,000 users, 100,000 chats,
1,000,000 messages, 100,000 memories and 100,000 passages; one user in a thousand has far more than
the others.
"""

import argparse
import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import asyncpg
import numpy as np

from services.auth.credentials import Passwords

DIMENSIONS: Final = 256
EMBEDDER: Final = "wordllama-256"
PASSWORD: Final = "a password of the load test"
ADMIN_EMAIL: Final = "admin@load.example"

_BEGUN: Final = datetime(2026, 1, 1, tzinfo=UTC)
_SEED: Final = 7
_TURNS_OF_A_CHAT: Final = 5
_TURNS_OF_A_LONG_CHAT: Final = 30
_LONG_CHATS: Final = 32
_TURNS_BETWEEN_CALLS: Final = 4
_INPUT: Final = '{"expression": "6 * 7"}'
_PASSAGES_OF_A_DOCUMENT: Final = 20
_CLUSTERS: Final = 500
_SYLLABLES: Final = ("ba", "ce", "di", "fo", "gu", "ha", "ki", "lo", "me", "nu", "pa", "ri", "so")
_BATCH: Final = 20_000
_MODEL: Final = "claude-haiku-5-5"

Record = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Size:
    """How many of each there are."""

    users: int = 10_000
    chats: int = 100_000
    memories: int = 100_000
    passages: int = 100_000

    @classmethod
    def of_turns(cls, turns: int) -> "Size":
        """Return a population that has had this number of turns, and keeps no documents."""
        chats = turns // _TURNS_OF_A_CHAT
        return cls(users=max(10, turns // 50), chats=chats, memories=turns // 10, passages=0)

    @classmethod
    def scaled(cls, scale: float) -> "Size":
        """Return a part of the whole."""
        whole = cls()
        return cls(
            users=int(whole.users * scale),
            chats=int(whole.chats * scale),
            memories=int(whole.memories * scale),
            passages=int(whole.passages * scale),
        )


@dataclass(slots=True)
class Population:
    """The users, and how their rows are generated. `chance` is seeded, so runs are repeatable.

    `number` tells populations of one database apart: the first is 0.
    """

    size: Size
    password_hash: str
    number: int = 0
    chance: random.Random = field(default_factory=random.Random)
    words: tuple[str, ...] = ()
    users: list[UUID] = field(default_factory=list)
    _moment: int = 0

    def __post_init__(self) -> None:
        """Make the words, and the people's ids."""
        self.chance.seed(_SEED + self.number)
        self.words = tuple(
            "".join(self.chance.choices(_SYLLABLES, k=self.chance.randint(2, 4)))
            for _ in range(3_000)
        )
        self.users = [self.new_id() for _ in range(self.size.users)]

    def new_id(self) -> UUID:
        """Return a UUIDv7; each is later than those before."""
        self._moment += 1
        milliseconds = int(_BEGUN.timestamp() * 1000) + self._moment
        noise = self.chance.getrandbits(74)
        high = (milliseconds << 16) | (7 << 12) | (noise >> 62)
        low = (2 << 62) | (noise & ((1 << 62) - 1))
        return UUID(int=(high << 64) | low)

    def text(self, words: int) -> str:
        """Return a sentence."""
        return " ".join(self.chance.choices(self.words, k=words)).capitalize() + "."

    def owner(self, number: int, *, favoured: float = 0.02) -> UUID:
        """Return the owner of resource `number`; the first user owns more than all others."""
        if self.chance.random() < favoured:
            return self.users[0]
        return self.users[number % len(self.users)]

    def moment_of(self, number: int) -> datetime:
        """Return when the resource of this number was created."""
        return _BEGUN + timedelta(seconds=number)


def people(of: Population) -> Iterator[Record]:
    """Yield rows of `users`; the last one of the first population is an administrator."""
    for number, user in enumerate(of.users):
        is_last = not of.number and number == len(of.users) - 1
        email = ADMIN_EMAIL if is_last else email_of(number, population=of.number)
        role = "admin" if is_last else "user"
        yield user, email, f"Person {number}", role, of.moment_of(number)


def email_of(number: int, *, population: int = 0) -> str:
    """Return the address with which the user of this number signs in."""
    return f"user{number}@load{population or ''}.example"


def credentials(of: Population) -> Iterator[Record]:
    """Yield rows of `credentials`."""
    for user in of.users:
        yield user, of.password_hash


@dataclass(slots=True)
class Conversations:
    """Chats with their turns and all that belongs to these, a batch at a time."""

    chats: list[Record] = field(default_factory=list)
    turns: list[Record] = field(default_factory=list)
    messages: list[Record] = field(default_factory=list)
    steps: list[Record] = field(default_factory=list)
    calls: list[Record] = field(default_factory=list)
    charges: list[Record] = field(default_factory=list)
    feedback: list[Record] = field(default_factory=list)


def conversations(of: Population) -> Iterator[Conversations]:
    """Yield chats in batches, each with everything in it."""
    batch = Conversations()
    for number in range(of.size.chats):
        _converse(of, number, batch)
        if len(batch.messages) >= _BATCH:
            yield batch
            batch = Conversations()
    yield batch


def _converse(of: Population, number: int, batch: Conversations) -> None:
    chat, owner, moment = of.new_id(), of.owner(number), of.moment_of(number)
    cost, leaf = Decimal("0.0005"), None
    for place in range(_TURNS_OF_A_LONG_CHAT if number < _LONG_CHATS else _TURNS_OF_A_CHAT):
        turn, question, answer = of.new_id(), of.new_id(), of.new_id()
        batch.turns.append(
            (turn, chat, owner, question, answer, "completed", False, _MODEL, 100, 50, cost, moment)
        )
        batch.messages.append((question, chat, owner, turn, leaf, "user", of.text(12), moment))
        text = of.text(40)
        batch.messages.append((answer, chat, owner, turn, question, "assistant", text, moment))
        leaf = answer
        batch.steps.append(
            (turn, 1, owner, 1, "r", "a", 1, _MODEL, "completed", text, "end_turn", moment, moment)
        )
        if place % _TURNS_BETWEEN_CALLS == 0:
            batch.calls.append(
                (turn, 1, "call", owner, 0, "calculator", _INPUT, "completed", of.text(100), moment)
            )
            rating = ("up", "down")[number % 2]
            batch.feedback.append((of.new_id(), answer, chat, turn, owner, rating, _MODEL, moment))
        batch.charges.append(
            (
                of.new_id(),
                owner,
                turn,
                1,
                1,
                "model",
                _MODEL,
                "settled",
                False,
                100,
                50,
                cost,
                moment,
            )
        )
    batch.chats.append((chat, owner, of.text(4)[:200], leaf, moment, moment))


def vectors(count: int) -> Iterator[bytes]:
    """Yield vectors in pgvector's binary form: of length 1, in clusters as meanings are.

    Source: pgvector, `vector_recv`: two 16-bit numbers, then 32-bit floats, all big-endian.
    """
    generator = np.random.default_rng(_SEED)
    centres = generator.normal(size=(_CLUSTERS, DIMENSIONS))
    head = DIMENSIONS.to_bytes(2, "big") + b"\x00\x00"
    for begin in range(0, count, _BATCH):
        wanted = min(_BATCH, count - begin)
        chosen = centres[generator.integers(_CLUSTERS, size=wanted)]
        made = chosen + 0.7 * generator.normal(size=(wanted, DIMENSIONS))
        made /= np.linalg.norm(made, axis=1, keepdims=True)
        for row in made.astype(">f4"):
            yield head + row.tobytes()


def memories(of: Population) -> Iterator[Record]:
    """Yield rows of `memories`."""
    for number, vector in enumerate(vectors(of.size.memories)):
        owner = of.owner(number, favoured=0.05)
        moment = of.moment_of(number)
        importance = of.chance.random()
        yield (
            of.new_id(), owner, "fact", of.text(12), importance, vector, EMBEDDER, moment, moment
        )  # fmt: skip


@dataclass(slots=True)
class Library:
    """Documents, each with one version cut into passages; two in three are published."""

    documents: list[Record] = field(default_factory=list)
    versions: list[Record] = field(default_factory=list)
    passages: list[Record] = field(default_factory=list)


def libraries(of: Population) -> Iterator[Library]:
    """Yield documents in batches."""
    batch = Library()
    made = vectors(of.size.passages)
    for number in range(of.size.passages // _PASSAGES_OF_A_DOCUMENT):
        _write(of, number, made, batch)
        if len(batch.passages) >= _BATCH:
            yield batch
            batch = Library()
    yield batch


def _write(of: Population, number: int, made: Iterator[bytes], batch: Library) -> None:
    document, owner, moment = of.new_id(), of.owner(number), of.moment_of(number)
    published = number % 3 != 0
    texts = [of.text(80) for _ in range(_PASSAGES_OF_A_DOCUMENT)]
    whole = "\n".join(texts)
    batch.documents.append(
        (document, owner, of.text(4)[:200], 1 if published else None, moment, moment)
    )
    batch.versions.append(
        (document, 1, owner, "text/plain", whole.encode(), whole, "ready",
         len(texts), len(texts), published, moment)
    )  # fmt: skip
    begin = 0
    for position, text in enumerate(texts):
        end = begin + len(text)
        batch.passages.append(
            (of.new_id(), document, 1, owner, position, text, begin, end, published,
             next(made), EMBEDDER, moment)
        )  # fmt: skip
        begin = end + 1


_COLUMNS: Final = {
    "users": "id email display_name role created_at",
    "credentials": "user_id password_hash",
    "chats": "id user_id title leaf_id created_at updated_at",
    "turns": "id chat_id user_id user_message_id assistant_message_id status active model "
    "input_tokens output_tokens cost_usd created_at",
    "messages": "id chat_id user_id turn_id parent_id role content created_at",
    "steps": "turn_id step user_id attempt run_id activity_id activity_attempt model status text "
    "stop_reason created_at updated_at",
    "tool_calls": "turn_id step tool_call_id user_id position name input status output created_at",
    "feedback": "id message_id chat_id turn_id user_id rating model created_at",
    "ledger": "id user_id turn_id step attempt kind model status estimated input_tokens "
    "output_tokens cost_usd created_at",
    "memories": "id user_id kind content importance embedding embedder created_at updated_at",
    "documents": "id user_id title published_version created_at updated_at",
    "document_versions": "document_id number user_id content_type source content status "
    "passage_count embedded_count published created_at",
    "passages": "id document_id version user_id position content start_char end_char published "
    "embedding embedder created_at",
}


async def populate(url: str, size: Size, *, number: int = 0) -> None:
    """Fill a migrated database, as its superuser, with one more population.

    Errors: asyncpg's own; ValueError for a database that has the population of this number.
    """
    of = Population(size, await Passwords().hash(PASSWORD), number)
    async with _filling(url) as connection:
        if await connection.fetchval(
            "SELECT count(*) FROM users WHERE email = $1", email_of(0, population=number)
        ):
            raise ValueError("this database is populated already")
        await _copy(connection, "users", list(people(of)))
        await _copy(connection, "credentials", list(credentials(of)))
        for talk in conversations(of):
            await _copy(connection, "chats", talk.chats)
            await _copy(connection, "turns", talk.turns)
            await _copy(connection, "messages", talk.messages)
            await _copy(connection, "steps", talk.steps)
            await _copy(connection, "tool_calls", talk.calls)
            await _copy(connection, "ledger", talk.charges)
            await _copy(connection, "feedback", talk.feedback)
        await _copy(connection, "memories", list(memories(of)))
        for library in libraries(of):
            await _copy(connection, "documents", library.documents)
            await _copy(connection, "document_versions", library.versions)
            await _copy(connection, "passages", library.passages)


@asynccontextmanager
async def _filling(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Connect without foreign keys and triggers, and build the vectors' index at the end."""
    connection = await asyncpg.connect(url)
    try:
        await connection.set_type_codec(
            "vector", schema="public", encoder=bytes, decoder=bytes, format="binary"
        )
        definition = await connection.fetchval(
            "SELECT indexdef FROM pg_indexes WHERE indexname = $1", _VECTOR_INDEX
        )
        await connection.execute(f"DROP INDEX {_VECTOR_INDEX}")
        await connection.execute("SET session_replication_role = replica")
        yield connection
        await connection.execute("SET maintenance_work_mem = '1GB'")
        await connection.execute(definition, timeout=600)
        await connection.execute("VACUUM ANALYZE", timeout=600)
        # The data is at rest: no reader has to write out its pages first.
        await connection.execute("CHECKPOINT", timeout=600)
    finally:
        await connection.close()


_VECTOR_INDEX: Final = f"passages_embedding_{DIMENSIONS}_idx"


async def _copy(connection: asyncpg.Connection, table: str, records: list[Record]) -> None:
    await connection.copy_records_to_table(
        table, records=records, columns=_COLUMNS[table].split(), timeout=600
    )


def _main() -> None:
    parser = argparse.ArgumentParser(description="Fill a database with made-up data.")
    parser.add_argument("url", help="the database, as its superuser")
    parser.add_argument("--scale", type=float, default=1.0)
    arguments = parser.parse_args()
    begun = time.monotonic()
    asyncio.run(populate(arguments.url, Size.scaled(arguments.scale)))
    sys.stderr.write(f"Filled in {time.monotonic() - begun:.0f} s.\n")


if __name__ == "__main__":
    _main()
