"""A parser process's output: the text, or the reason why it failed."""

import pytest

from schema.result import Err, Ok, Result
from services.knowledge.extraction.documents import (
    Answer,
    ContentType,
    ExtractionLimits,
    ExtractionRefusal,
)
from services.knowledge.extraction.parser_process import answer
from tests.fixtures import documents


@pytest.mark.parametrize(
    ("content_type", "data", "result"),
    [
        (ContentType.HTML, b"<p>Hello", Ok("Hello")),
        (ContentType.HTML, b"<p>", Err(ExtractionRefusal.NO_TEXT)),
        (ContentType.PDF, documents.pdf("Hello"), Ok("Hello")),
        (ContentType.PDF, b"Hello", Err(ExtractionRefusal.NOT_ITS_TYPE)),
    ],
)
def test_an_answer_carries_the_decision(
    content_type: ContentType, data: bytes, result: Result[str, ExtractionRefusal]
) -> None:
    said = answer(content_type, data, ExtractionLimits())
    assert result == Answer.model_validate_json(said).result()
