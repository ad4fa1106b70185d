"""How well memories are found: people with memories, questions, and which memories answer them.

Each person also has memories that answer none of the questions. What is measured is the search
itself, in a database, with the embedder that is configured.
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from schema.actors import Actor
from schema.ids import MemoryId
from schema.memories import CreateMemoryRequest, SearchMemoriesRequest
from schema.result import Ok
from services.memories.search import MemorySearch
from services.memories.service import MemoryService

_SET: Final = Path(__file__).parent / "retrieval.json"
_FIVE: Final = 5
_MOST: Final = 100


class Question(NamedTuple):
    """A question, and the names of the memories that answer it."""

    text: str
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Person:
    """A user with memories, by short names, and questions about them."""

    name: str
    memories: dict[str, str]
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class RetrievalSet:
    """The set. What was decided by measuring was decided on `tuning` alone.

    `beside` answers no question and belongs to everybody; no memory answers `unrelated`.
    """

    tuning: tuple[Person, ...]
    held_out: tuple[Person, ...]
    beside: tuple[str, ...]
    unrelated: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Quality:
    """Recall among the first five, and the mean reciprocal rank of the first answer."""

    questions: int
    recall_at_5: float
    reciprocal_rank: float

    def __str__(self) -> str:
        """Return one line of figures."""
        return (
            f"recall@5 {self.recall_at_5:.3f}   MRR {self.reciprocal_rank:.3f}   "
            f"({self.questions} questions)"
        )


def retrieval_set() -> RetrievalSet:
    """Read the set."""
    read = json.loads(_SET.read_text(encoding="utf-8"))
    groups = {group: tuple(map(_person, read[group])) for group in ("tuning", "held_out")}
    return RetrievalSet(**groups, beside=tuple(read["beside"]), unrelated=tuple(read["unrelated"]))


def _person(read: dict[str, object]) -> Person:
    match read:
        case {"name": str(name), "memories": dict(memories), "questions": list(questions)}:
            asked = [Question(text, tuple(answers)) for text, answers in questions]
            return Person(name, memories, tuple(asked))
        case _:
            raise ValueError(read)


NewUser = Callable[[], Awaitable[Actor]]


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Measures a search on users of its own."""

    memories: MemoryService
    search: MemorySearch
    new_user: NewUser

    async def quality(self, people: Sequence[Person], beside: Sequence[str]) -> Quality:
        """Return how well the questions about these people are answered."""
        recalls: list[float] = []
        reciprocal_ranks: list[float] = []
        for person in people:
            actor, names = await self._store(person, beside)
            for question in person.questions:
                request = SearchMemoriesRequest(query=question.text, limit=_MOST)
                found = [names.get(hit.id) for hit in await self.search.search(actor, request)]
                first_five = {*found[:_FIVE]} & {*question.answers}
                recalls.append(len(first_five) / len(question.answers))
                ranks = [found.index(name) + 1 for name in question.answers if name in found]
                reciprocal_ranks.append(1 / min(ranks) if ranks else 0.0)
        return Quality(len(recalls), _mean(recalls), _mean(reciprocal_ranks))

    async def _store(
        self, person: Person, beside: Sequence[str]
    ) -> tuple[Actor, dict[MemoryId, str]]:
        actor = await self.new_user()
        names = {}
        for name, content in person.memories.items():
            names[await self._create(actor, content)] = name
        for content in beside:
            await self._create(actor, content)
        return actor, names

    async def _create(self, actor: Actor, content: str) -> MemoryId:
        created = await self.memories.create(actor, CreateMemoryRequest(content=content), key=None)
        assert isinstance(created, Ok), created
        return created.value.id


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
