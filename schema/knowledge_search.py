"""The search of documents: queries and hits."""

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, Field

from schema.ids import DocumentId
from schema.wire import RequestModel, StorableText, WireModel


class KnowledgeHit(WireModel):
    """A passage that matches a search, from `startChar` to `endChar` of the version's text.

    Units: `score` is in (0, 1]; 1 is the best match both by meaning and by words.
    """

    document_id: DocumentId
    title: str = Field(description="The document's title.")
    version: int = Field(description="The document's version that contains the passage.")
    passage_id: UUID
    position: int = Field(description="The passage's position in the version, from 0.")
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
    """A search; quotes match a phrase, a minus excludes a word."""

    query: Annotated[
        StorableText,
        Field(min_length=1, max_length=2000, examples=["How long can goods be returned?"]),
        AfterValidator(_not_blank),
    ]
    limit: Annotated[int, Field(ge=1, le=50, description="The maximum number of results.")] = 10


@dataclass(frozen=True, slots=True)
class FoundPassage:
    """A piece of a document's version. Units: `score` is larger for a better match."""

    document_id: UUID
    version: int
    passage_id: UUID
    title: str
    content: str
    score: float
