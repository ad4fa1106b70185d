"""Owns the recognition of what a user wants a tool to do by name, or in a few set phrases."""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass

from workers.demo_model.prompt import JsonObject

_CALL = re.compile(r"\s*(/?)call\s+([\w-]{1,128})\s*(\{.*\})?\s*", re.IGNORECASE | re.DOTALL)
_PHRASES = {
    "remember": ("content", r"remember(?:\s+that|:)\s+(.+)"),
    "recall": ("query", r"what do you remember about\s+(.+)"),
    "web_search": ("query", r"search the web for\s+(.+)"),
    "knowledge_search": ("query", r"search (?:the|my) documents for\s+(.+)"),
    "deep_reasoning": ("question", r"think hard about\s+(.+)"),
}
_PATTERNS = {
    name: (field, re.compile(rf"\s*(?:please[,\s]+)?{phrase}", re.IGNORECASE | re.DOTALL))
    for name, (field, phrase) in _PHRASES.items()
}
_MAX_CHARS = 900


@dataclass(frozen=True, slots=True)
class WantedCall:
    """A call that the user spelled out; without `input` what they wrote was no JSON object."""

    name: str
    input: JsonObject | None


def find_call(text: str, *, offered: Collection[str]) -> WantedCall | None:
    """Return the call that a message of the form `call <tool> {json}` spells out, or None.

    Without an input it is one only with a slash, or for a tool that is offered: people call
    other things too.
    """
    found = _CALL.fullmatch(text)
    if found is None or not (found[1] or found[3] or found[2] in offered):
        return None
    return WantedCall(found[2], _object(found[3] or "{}"))


def find_phrase(text: str, *, offered: Collection[str]) -> WantedCall | None:
    """Return the call that a set phrase asks for, such as `remember that …`, or None."""
    for name, (field, pattern) in _PATTERNS.items():
        if name in offered and (found := pattern.fullmatch(text)):
            return WantedCall(name, {field: found[1].strip()[:_MAX_CHARS]})
    return None


def _object(text: str) -> JsonObject | None:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None
