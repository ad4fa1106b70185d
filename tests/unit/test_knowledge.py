"""Knowledge without a database: vocabularies that agree, identities, sentences, paths."""

from typing import get_args

import pytest

from api.document_bodies import takes_document
from schema.ids import DocumentId, new_id
from schema.ingestion import IngestionProblem, IngestionProgress
from schema.knowledge import DocumentType, IngestionStatus, TextType
from services.knowledge.extraction.documents import ContentType, ExtractionRefusal
from services.knowledge.ingestion import sentence_of
from services.knowledge.versions import Submission, TitledSubmission, identity_of

WORDS = TitledSubmission("text/plain", b"Words.", "T")


def test_every_type_that_can_be_sent_can_be_read() -> None:
    sent = {*get_args(TextType), *get_args(DocumentType)}

    assert sent == set(ContentType)


@pytest.mark.parametrize("problem", [*ExtractionRefusal, *IngestionProblem])
def test_every_problem_has_a_sentence(problem: ExtractionRefusal | IngestionProblem) -> None:
    sentence = sentence_of(problem)

    assert sentence.endswith(".")
    assert len(sentence) <= 500


@pytest.mark.parametrize(
    "other",
    [
        TitledSubmission("text/plain", b"Words?", "T"),
        TitledSubmission("text/plain", b"Words.", "U"),
        TitledSubmission("text/markdown", b"Words.", "T"),
        Submission("text/plain", b"Words."),
    ],
)
def test_a_submission_is_known_by_its_bytes_its_title_and_its_type(other: Submission) -> None:
    assert identity_of(WORDS) == identity_of(TitledSubmission("text/plain", b"Words.", "T"))
    assert identity_of(WORDS) != identity_of(other)


def test_the_same_bytes_for_two_documents_are_two_submissions() -> None:
    first, second = DocumentId(new_id()), DocumentId(new_id())
    words = Submission("text/plain", b"Words.")

    assert identity_of(words, document_id=first) != identity_of(words, document_id=second)


@pytest.mark.parametrize(
    ("status", "is_under_way"),
    [
        (IngestionStatus.PENDING, True),
        (IngestionStatus.PROCESSING, True),
        (IngestionStatus.READY, False),
        (IngestionStatus.FAILED, False),
        (None, False),
    ],
)
def test_an_ingestion_is_running_until_it_has_ended(
    status: IngestionStatus | None, *, is_under_way: bool
) -> None:
    progress = IngestionProgress(status=status, passages=5, embedded=3)

    assert progress.is_under_way is is_under_way
    assert progress.left == 2


@pytest.mark.parametrize(
    ("method", "path", "takes"),
    [
        ("POST", "/api/v1/knowledge", True),
        ("POST", "/api/v1/knowledge/1/versions", True),
        ("POST", "/api/v1/knowledge/", False),
        ("POST", "/api/v1/knowledge/1/versions/2", False),
        ("POST", "/api/v1/knowledge/1/publish", False),
        ("POST", "/api/v1/knowledge/search", False),
        ("POST", "/other/api/v1/knowledge", False),
        ("PATCH", "/api/v1/knowledge", False),
    ],
)
def test_only_routes_that_take_documents_may_be_sent_more(
    method: str, path: str, *, takes: bool
) -> None:
    scope = {"type": "http", "method": method, "path": path}

    assert takes_document(scope, prefix="/api/v1") is takes
