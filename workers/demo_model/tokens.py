"""Owns how text is counted and cut into deltas; the counts are a convention, no tokeniser's."""

import json
import re
from collections.abc import Sequence
from typing import Any

CHARS_PER_TOKEN = 4
_PIECE = re.compile(r"\s*\S{1,12}|\s+")


def tokens_of(chars: int) -> int:
    """Return how many tokens this many characters make: a quarter, rounded up, at least one."""
    return max(1, -(-chars // CHARS_PER_TOKEN))


def split_pieces(text: str) -> tuple[str, ...]:
    """Split text into word-like pieces which, joined, are the text again."""
    return tuple(_PIECE.findall(text))


def input_tokens_of(body: dict[str, Any]) -> int:
    """Return the tokens of a request: its system prompt, its tools and its messages."""
    contents = [message.get("content") for message in body["messages"]]
    return tokens_of(_chars(body.get("system")) + _chars(body.get("tools")) + _chars(contents))


def _chars(value: object) -> int:
    match value:
        case None:
            return 0
        case str():
            return len(value)
        case {"type": "text", "text": str(text)}:
            return len(text)
        case {"type": "tool_result", **rest}:
            return _chars(rest.get("content"))
        case Sequence():
            return sum(_chars(item) for item in value)
        case _:
            return len(json.dumps(value, ensure_ascii=False))
