"""Owns what of all that was found a prompt has room for."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

from schema.contexts import ContextSource, SourceType
from schema.knowledge_search import FoundPassage
from schema.memories import MemoryHit
from services.contexts.rendering import (
    context_frame_tokens,
    context_layer,
    memory_text,
    passage_text,
)
from services.prompts.tokens import estimated_tokens

_NOTHING: Final = ("", ())


@dataclass(frozen=True, slots=True)
class _Quote:
    source: ContextSource
    text: str


def quoted(
    memories: Sequence[MemoryHit], passages: Sequence[FoundPassage], *, budget_tokens: int
) -> tuple[str, tuple[ContextSource, ...]]:
    """Return the context layer and its sources: the best of both kinds, as far as they fit.

    Scores of memories and of passages can't be compared, so their ranks are: what is cut is the
    least relevant of each.
    """
    left = budget_tokens - context_frame_tokens()
    kept: list[_Quote] = []
    ranked = zip_longest(map(_of_memory, memories), map(_of_passage, passages))
    for quote in (quote for pair in ranked for quote in pair if quote is not None):
        left -= estimated_tokens(len(quote.text))
        if left < 0:
            break
        kept.append(quote)
    if not kept:
        return _NOTHING
    by_kind = {kind: [quote for quote in kept if quote.source.type is kind] for kind in SourceType}
    layer = context_layer(
        [quote.text for quote in by_kind[SourceType.MEMORY]],
        [quote.text for quote in by_kind[SourceType.DOCUMENT]],
    )
    in_order = by_kind[SourceType.MEMORY] + by_kind[SourceType.DOCUMENT]
    return layer, tuple(quote.source for quote in in_order)


def _of_memory(memory: MemoryHit) -> _Quote:
    source = ContextSource(type=SourceType.MEMORY, id=memory.id, score=memory.score)
    return _Quote(source, memory_text(memory))


def _of_passage(passage: FoundPassage) -> _Quote:
    source = ContextSource(
        type=SourceType.DOCUMENT,
        id=passage.document_id,
        version=passage.version,
        score=passage.score,
    )
    return _Quote(source, passage_text(passage))
