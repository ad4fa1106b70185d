"""Owns the sentences that tell a document's owner why it can't be searched."""

from collections.abc import Mapping
from typing import Final

from schema.ingestion import IngestionProblem
from services.knowledge.extraction.documents import ExtractionRefusal

_SENTENCES: Final[Mapping[ExtractionRefusal | IngestionProblem, str]] = {
    ExtractionRefusal.EMPTY: "The document is empty.",
    ExtractionRefusal.NOT_ITS_TYPE: "The document is not what its content type says.",
    ExtractionRefusal.TOO_LARGE: "The document has too much text. Split it and send its parts.",
    ExtractionRefusal.TOO_COMPLEX: "The document takes too much memory or time to read.",
    ExtractionRefusal.ENCRYPTED: "The document is encrypted. Send it without a password.",
    ExtractionRefusal.NO_TEXT: (
        "The document has no text that can be read, as where its pages are pictures."
    ),
    IngestionProblem.EMBEDDING_REFUSED: "The embedding service refuses to embed the document.",
    IngestionProblem.KEPT_FAILING: (
        "The document could not be read or embedded in several attempts. Send it again later."
    ),
    IngestionProblem.STOPPED: "An operator stopped the ingestion. Send the document again.",
}


def sentence_of(problem: ExtractionRefusal | IngestionProblem) -> str:
    """Return the sentence of a problem; none quotes the document."""
    return _SENTENCES[problem]
