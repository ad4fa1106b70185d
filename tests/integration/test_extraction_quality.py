"""The evaluation set of memory extraction, read from recorded answers: a gate."""

import pytest

from services.memory_extraction.extractor import MemoryExtractor
from tests.evaluation.extraction import (
    Dialogue,
    ExtractionQuality,
    dialogues,
    gateway_to,
    judge,
    recorded_quality,
    suggestions_for,
)
from tests.fakes.scripted_model.model import ScriptedModel
from tests.fakes.scripted_model.scripts import Script
from tests.fakes.scripted_model.server import serve as serve_model

NOTHING_TO_LEARN = [
    dialogue for dialogue in dialogues() if not dialogue.expected and dialogue.name != "fiction"
]


async def test_recorded_answers_are_read_as_well_as_before() -> None:
    quality = await recorded_quality()

    assert quality.precision >= 0.95
    assert quality.recall >= 0.93
    assert quality.replaced == quality.replacements == 3


@pytest.mark.parametrize("dialogue", NOTHING_TO_LEARN, ids=lambda dialogue: dialogue.name)
async def test_others_words_suggest_nothing_whatever_the_model_says(dialogue: Dialogue) -> None:
    model = ScriptedModel()
    model.add(Script(text=dialogue.recorded))
    async with serve_model(model) as url, gateway_to(url) as gateway:
        extractor = MemoryExtractor(gateway, model="claude-haiku-5-5")
        suggested, known = await suggestions_for(dialogue, extractor)

    assert (suggested, len(known)) == ([], len(dialogue.known))


def test_the_set_has_dialogues_of_each_sort() -> None:
    found = dialogues()

    assert len(found) >= 30
    assert sum(bool(dialogue.known) for dialogue in found) >= 3
    assert any(dialogue.replies_to for dialogue in found)
    assert any(not dialogue.message.isascii() for dialogue in found)


async def test_wrong_and_missing_suggestions_count() -> None:
    dialogue = next(found for found in dialogues() if found.name == "a name and a city")
    quality = ExtractionQuality()

    judge(quality, dialogue, [], [])

    assert (quality.precision, quality.recall) == (0, 0)
