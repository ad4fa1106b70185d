"""Reads what the model suggests: JSON, half of it, JSON in prose, or a list in prose.

What it says is checked here: a suggestion counts only with a passage of the user's own words.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from html import unescape
from typing import Any, Final

from pydantic import ValidationError

from schema.ids import MemoryId
from schema.memories import MemoryKind, MemorySuggestion
from schema.wire import make_storable
from services.memory_extraction.own_words import contains_passage, passage_about
from services.memory_extraction.prompt import MAX_SUGGESTIONS

_MAX_READ_CHARS: Final = 64 * 1024
_MAX_TRIES: Final = 2_000
_MAX_ITEMS: Final = 1_000
_MAX_CONTENT_CHARS: Final = 500
_MAX_PASSAGE_CHARS: Final = 1_000
_DEFAULT_IMPORTANCE: Final = 0.5

_LISTED: Final = re.compile(r"^[ \t]*(?:[-*•]|\d{1,3}[.)])[ \t]+(.+)$", re.MULTILINE)
_QUOTED: Final = re.compile(r"[\"“„«]([^\"“”«»\n]+)[\"”“»]")
# What models put around the quote of a listed note.
_AROUND_QUOTE: Final = re.compile(
    r"\(?\s*(?:from|quote|source|said|passage)?\s*[:=\u2014\u2013-]?\s*$", re.IGNORECASE
)

Item = dict[str, Any]


def read_suggestions(
    blocks: Sequence[Item], *, own: str, known: Sequence[MemoryId]
) -> list[MemorySuggestion]:
    """Return what the answer suggests and the user said, the most important first.

    `own` are the user's own words; `known` are the memories that the model saw, in order.
    """
    found: dict[str, MemorySuggestion] = {}
    for _, item in zip(range(_MAX_ITEMS), _items(blocks), strict=False):
        suggestion = _suggestion(item, own, known)
        if suggestion is not None:
            found.setdefault(suggestion.content.casefold(), suggestion)
    ranked = sorted(found.values(), key=lambda suggestion: -suggestion.importance)
    return ranked[:MAX_SUGGESTIONS]


def _items(blocks: Sequence[Item]) -> Iterator[Item]:
    for block in blocks:
        if isinstance(block.get("input"), dict):
            yield from _within(block["input"])
    text = "".join(block["text"] for block in blocks if block.get("type") == "text")
    text = text[:_MAX_READ_CHARS]
    written = list(_written_objects(text))
    yield from written or _listed(text)


def _written_objects(text: str) -> Iterator[Item]:
    """Find the objects with notes in a text, whatever stands around them or is missing."""
    decoder = json.JSONDecoder()
    position = 0
    for _ in range(_MAX_TRIES):
        position = text.find("{", position)
        if position < 0:
            return
        try:
            value, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            # The end of what is around it may be missing: look within.
            position += 1
            continue
        yield from _within(value)


def _within(value: object) -> Iterator[Item]:
    """Find the notes in an object: itself, or the objects of its lists."""
    if not isinstance(value, dict):
        return
    if isinstance(value.get("content"), str):
        yield value
        return
    for part in value.values():
        if isinstance(part, list):
            yield from (item for item in part if isinstance(item, dict))


def _listed(text: str) -> Iterator[Item]:
    """Find notes in a list of prose; the part in quotes is the passage."""
    for line in _LISTED.finditer(text):
        note = line[1].replace("**", "")
        quote = _QUOTED.search(note)
        if quote is None:
            yield {"content": note.strip()}
        else:
            before = _AROUND_QUOTE.sub("", note[: quote.start()]).strip()
            yield {"content": before, "quote": quote[1]}


def _suggestion(item: Item, own: str, known: Sequence[MemoryId]) -> MemorySuggestion | None:
    content = _line(item.get("content"))
    passage = _passage(item.get("quote"), content, own)
    if passage is None or not 0 < len(content) <= _MAX_CONTENT_CHARS:
        return None
    try:
        return MemorySuggestion(
            content=content,
            kind=_kind(item.get("kind")),
            importance=_importance(item.get("importance")),
            passage=passage,
            replaces_id=_replaced(item.get("replaces"), known),
        )
    except ValidationError:
        return None


def _passage(quote: object, content: str, own: str) -> str | None:
    """Return the passage, found by the content's words where the model quotes none."""
    if isinstance(quote, str) and quote.strip():
        passage = _line(unescape(quote))
        found = passage if contains_passage(own, passage) else None
    else:
        found = passage_about(own, content)
    return found if found and len(found) <= _MAX_PASSAGE_CHARS else None


def _line(value: object) -> str:
    return " ".join(make_storable(value).split()) if isinstance(value, str) else ""


def _kind(value: object) -> MemoryKind:
    return next((kind for kind in MemoryKind if kind.value == value), MemoryKind.FACT)


def _importance(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return _DEFAULT_IMPORTANCE
    return float(min(max(value, 0), 1))


def _replaced(value: object, known: Sequence[MemoryId]) -> MemoryId | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return known[value - 1] if 1 <= value <= len(known) else None
