"""What the demo model notes down: sentences that begin with a few set phrases, in English."""

import re
from html import unescape
from typing import Any

# As `services/memory_extraction/prompt.py` writes them.
_MESSAGE = re.compile(r"<user>\n(.*)\n</user>", re.DOTALL)
_KNOWN = re.compile(r'<memory number="(\d+)">(.*?)</memory>')

# What follows the phrase: a place is a name, anything else ends with its clause.
_PLACE = r"(?-i:([A-Z][\w'-]*(?:,? [A-Z][\w'-]*){0,3}))"
_CLAUSE = r"([^.!?;,\n\[]{2,200}?)(?=\s+(?:and|but|because|so) (?:i|my)\b|[.!?;,\n\[]|\Z)"
# The phrase, how the note begins, its kind and its importance.
_RULES = tuple(
    (
        re.compile(rf"\b{phrase}\s+{_PLACE if begins == 'Lives in' else _CLAUSE}", re.IGNORECASE),
        *(begins, kind, importance),
    )
    for phrase, begins, kind, importance in (
        (r"(?:my name is|call me)", "Is called", "fact", 0.8),
        (r"i(?:'m| am) allergic to", "Is allergic to", "fact", 0.9),
        (r"i (?:now live|live|have moved|moved|am moving) (?:in|to)", "Lives in", "fact", 0.7),
        (r"i (?:work|am working) as", "Works as", "fact", 0.7),
        (r"i (?:really )?(?:like|love|enjoy)", "Likes", "preference", 0.5),
        (r"i prefer", "Prefers", "preference", 0.5),
        (r"i (?:don't like|do not like|dislike|hate)", "Dislikes", "preference", 0.5),
        (r"(?<!do )i have(?=\s+(?:an?|two|three)\s)", "Has", "fact", 0.5),
        (r"remember(?: that|:)?", "", "fact", 0.6),
    )
)
_ONE_OF_A_KIND = ("Is called", "Lives in", "Works as")


def find_memories(question: str) -> list[dict[str, Any]]:
    """Return the notes on a message: what it says, and the memory that it contradicts."""
    found = _MESSAGE.search(question)
    message = unescape(found[1]) if found else ""
    known = [(int(number), unescape(content)) for number, content in _KNOWN.findall(question)]
    notes: list[dict[str, Any]] = []
    for pattern, beginning, kind, importance in _RULES:
        for said in pattern.finditer(message):
            content = f"{beginning} {said[1].strip()}".strip().rstrip(",") + "."
            notes.append(
                {
                    "content": content[0].upper() + content[1:],
                    "kind": kind,
                    "importance": importance,
                    "quote": said[0].strip(),
                    "replaces": _contradicted(beginning, content, known),
                }
            )
    return notes


def _contradicted(beginning: str, content: str, known: list[tuple[int, str]]) -> int | None:
    if beginning not in _ONE_OF_A_KIND:
        return None
    others = (number for number, memory in known if memory.startswith(beginning))
    return next(others, None) if content not in {memory for _, memory in known} else None
