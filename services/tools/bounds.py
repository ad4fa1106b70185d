"""Owns how much of a tool's output is kept and sent to a model."""

from typing import Final

from schema.wire import make_storable
from services.tools.definition import ToolOutcome

DEFAULT_MAX_OUTPUT_CHARS: Final = 20_000


def bounded(outcome: ToolOutcome, *, max_chars: int = DEFAULT_MAX_OUTPUT_CHARS) -> ToolOutcome:
    """Return the outcome with no more text than fits, and none that can't be stored."""
    blocks = tuple(
        {**block, "text": cut(make_storable(block["text"]), limit=max_chars)}
        if block.get("type") == "text"
        else block
        for block in outcome.blocks
    )
    output = cut(make_storable(outcome.output), limit=max_chars)
    return outcome.model_copy(update={"output": output, "blocks": blocks})


def cut(text: str, *, limit: int) -> str:
    """Return the text, or its beginning and how much of it there was."""
    if len(text) <= limit:
        return text
    # The marker counts towards the limit, at the length that it has with the larger number.
    kept = max(0, limit - len(_cut_marker(len(text), len(text))))
    return text[:kept] + _cut_marker(kept, len(text))


def _cut_marker(kept: int, total: int) -> str:
    return f"\n[Cut here: the first {kept:,} of {total:,} characters are shown.]"
