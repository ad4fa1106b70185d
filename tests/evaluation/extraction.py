"""How well memories are extracted: dialogues, what should be suggested, and what should not.

The dialogues are read by whatever model is configured, or by one whose answers are recorded: as a
plausible cheap model would give them, with its mistakes.
"""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from schema.ids import MemoryId, new_id
from schema.memories import MemorySuggestion
from services.memory_extraction.extractor import MemoryExtractor
from services.memory_extraction.own_words import own_words, says_something
from services.memory_extraction.prompt import Said
from services.models.gateway import ModelGateway
from services.settings import Settings
from tests.fakes.scripted_model.model import ScriptedModel
from tests.fakes.scripted_model.scripts import Script
from tests.fakes.scripted_model.server import serve as serve_model

_SET: Final = Path(__file__).parent / "extraction.json"
_MODEL: Final = "claude-haiku-5-5"


@dataclass(frozen=True, slots=True)
class Expected:
    """A memory to be suggested: all of these words, and the number of the memory it replaces."""

    words: tuple[str, ...]
    replaces: int | None = None

    def describes(self, suggestion: MemorySuggestion) -> bool:
        """Whether a suggestion says this."""
        said = f"{suggestion.content} {suggestion.passage}".casefold()
        return all(word.casefold() in said for word in self.words)


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A message, what it stands in, and what should be suggested; `optional` counts neither way."""

    name: str
    message: str
    replies_to: str
    known: tuple[str, ...]
    expected: tuple[Expected, ...]
    optional: tuple[Expected, ...]
    recorded: str


@dataclass(slots=True)
class ExtractionQuality:
    """Suggestions that were expected, and those that were not."""

    expected: int = 0
    found: int = 0
    wrong: int = 0
    replacements: int = 0
    replaced: int = 0

    @property
    def precision(self) -> float:
        """The part of the suggestions that should have been made."""
        return self.found / max(self.found + self.wrong, 1)

    @property
    def recall(self) -> float:
        """The part of the expected suggestions that were made."""
        return self.found / max(self.expected, 1)

    def __str__(self) -> str:
        """Return one line of figures."""
        return (
            f"precision {self.precision:.3f}   recall {self.recall:.3f}   "
            f"replacements {self.replaced} of {self.replacements}   ({self.expected} expected)"
        )


def dialogues() -> tuple[Dialogue, ...]:
    """Return the set."""
    return tuple(map(_dialogue, json.loads(_SET.read_text())))


def _dialogue(entry: dict[str, Any]) -> Dialogue:
    recorded = entry["recorded"]
    return Dialogue(
        name=entry["name"],
        message=entry["message"],
        replies_to=entry.get("replies_to", ""),
        known=tuple(entry.get("known", ())),
        expected=tuple(
            Expected(tuple(memory["words"]), memory.get("replaces")) for memory in entry["expected"]
        ),
        optional=tuple(Expected(tuple(words)) for words in entry.get("optional", ())),
        recorded=recorded if isinstance(recorded, str) else json.dumps(recorded),
    )


async def suggestions_for(
    dialogue: Dialogue, extractor: MemoryExtractor
) -> tuple[list[MemorySuggestion], list[MemoryId]]:
    """Return what is suggested from a dialogue, and the ids that its known memories had."""
    known = [MemoryId(new_id()) for _ in dialogue.known]
    own = own_words(dialogue.message)
    if not says_something(own):
        return [], known
    said = Said(own, dialogue.replies_to, dialogue.known)
    return await extractor.extract(said, known, extractor.usage_before(said)), known


def judge(
    quality: ExtractionQuality,
    dialogue: Dialogue,
    suggested: Sequence[MemorySuggestion],
    known: Sequence[MemoryId],
) -> None:
    """Count the suggestions of one dialogue."""
    left = list(dialogue.expected)
    quality.expected += len(left)
    quality.replacements += sum(memory.replaces is not None for memory in left)
    for suggestion in suggested:
        found = next((memory for memory in left if memory.describes(suggestion)), None)
        if found is not None:
            left.remove(found)
            quality.found += 1
            if found.replaces is not None:
                quality.replaced += suggestion.replaces_id == known[found.replaces - 1]
        elif not any(memory.describes(suggestion) for memory in dialogue.optional):
            quality.wrong += 1


async def quality_of(extractor: MemoryExtractor) -> ExtractionQuality:
    """Return how well a model reads the dialogues. Errors: ModelCallError."""
    quality = ExtractionQuality()
    for dialogue in dialogues():
        suggested, known = await suggestions_for(dialogue, extractor)
        judge(quality, dialogue, suggested, known)
    return quality


async def report(settings: Settings) -> list[str]:
    """Return lines about the configured model, or the demo model without one, and the recording.

    Errors: ModelCallError.
    """
    lines = [f"  recorded answers     {await recorded_quality()}"]
    if settings.anthropic_api_key is None:
        async with serve_model(ScriptedModel()) as url, gateway_to(url) as gateway:
            quality = await quality_of(MemoryExtractor(gateway, model=_MODEL))
        return [*lines, f"  demo model           {quality}"]
    key = settings.anthropic_api_key.get_secret_value()
    async with gateway_to(settings.anthropic_base_url, api_key=key) as gateway:
        quality = await quality_of(MemoryExtractor(gateway, model=settings.cheap_model))
    return [*lines, f"  {settings.cheap_model:20} {quality}"]


async def recorded_quality() -> ExtractionQuality:
    """Return how well the recorded answers are read, each over the wire."""
    model, quality = ScriptedModel(), ExtractionQuality()
    async with serve_model(model) as url, gateway_to(url) as gateway:
        extractor = MemoryExtractor(gateway, model=_MODEL)
        for dialogue in dialogues():
            model.add(Script(text=dialogue.recorded))
            suggested, known = await suggestions_for(dialogue, extractor)
            model.clear_scripts()
            judge(quality, dialogue, suggested, known)
    return quality


@asynccontextmanager
async def gateway_to(url: str | None, *, api_key: str = "test") -> AsyncIterator[ModelGateway]:
    """Open a gateway to a provider."""
    gateway = ModelGateway(
        api_key=api_key, base_url=url, idle_timeout_s=60, answer_timeout_s=120, connections=4
    )
    try:
        yield gateway
    finally:
        await gateway.close()
