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
from schema.memories import CreateMemoryRequest, MemoryHit, SearchMemoriesRequest
from schema.result import Ok
from services.memories.search import MemorySearch, is_relevant
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
    """How well questions are answered.

    Recall among the first five, and the mean reciprocal rank of the first answer; which part of the
    answers counts as relevant to a prompt, and which of all memories for an unrelated question.
    """

    questions: int
    recall_at_5: float
    reciprocal_rank: float
    answers_relevant: float
    noise_relevant: float

    def __str__(self) -> str:
        """Return one line of figures."""
        return (
            f"recall@5 {self.recall_at_5:.3f}   MRR {self.reciprocal_rank:.3f}   "
            f"relevant: {self.answers_relevant:.3f} of answers, "
            f"{self.noise_relevant:.3f} of noise   ({self.questions} questions)"
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

    async def quality(self, people: Sequence[Person], found: RetrievalSet) -> Quality:
        """Return how well the questions about these people are answered."""
        recalls: list[float] = []
        reciprocal_ranks: list[float] = []
        answers: list[bool] = []
        noise: list[bool] = []
        for person in people:
            actor, names = await self._store(person, found.beside)
            for question in person.questions:
                hits = await self._search(actor, question.text)
                places = {names[hit.id]: place for place, hit in enumerate(hits) if hit.id in names}
                known = [places[name] for name in question.answers if name in places]
                recalls.append(sum(place < _FIVE for place in known) / len(question.answers))
                reciprocal_ranks.append(1 / (1 + min(known)) if known else 0.0)
                answers += [is_relevant(hits[place]) for place in known]
            for unrelated in found.unrelated:
                noise += map(is_relevant, await self._search(actor, unrelated))
        return Quality(
            questions=len(recalls),
            recall_at_5=_mean(recalls),
            reciprocal_rank=_mean(reciprocal_ranks),
            answers_relevant=_mean(answers),
            noise_relevant=_mean(noise),
        )

    async def _search(self, actor: Actor, query: str) -> list[MemoryHit]:
        return await self.search.search(actor, SearchMemoriesRequest(query=query, limit=_MOST))

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
        return created.value.memory.id


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
