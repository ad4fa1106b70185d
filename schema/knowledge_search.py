"""Owns the search of knowledge as clients send it and see its answers."""

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, Field

from schema.ids import DocumentId
from schema.wire import RequestModel, StorableText, WireModel


class KnowledgeHit(WireModel):
    """A passage that was found, from `start_char` to `end_char` of the version's text.

    Units: `score` is in (0, 1]; 1 for what is the best both by meaning and by words.
    """

    document_id: DocumentId
    title: str = Field(description="The document's.")
    version: int = Field(description="Which of the document's versions it is from.")
    passage_id: UUID
    position: int = Field(description="Which passage of the version it is, from 0.")
    content: str = Field(description="The passage.")
    start_char: int
    end_char: int
    score: float
    own: bool = Field(description="Whether the document belongs to the caller.")


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


class SearchKnowledgeRequest(RequestModel):
    """What is looked for; quotes keep words together, a minus leaves a word out."""

    query: Annotated[
        StorableText,
        Field(min_length=1, max_length=2000, examples=["How long can goods be returned?"]),
        AfterValidator(_not_blank),
    ]
    limit: Annotated[int, Field(ge=1, le=50, description="How many hits at most.")] = 10


@dataclass(frozen=True, slots=True)
class FoundPassage:
    """A piece of a document's version. Units: `score` is larger for a better match."""

    document_id: UUID
    version: int
    title: str
    content: str
    score: float
