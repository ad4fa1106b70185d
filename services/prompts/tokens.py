"""Owns estimating tokens before a provider has counted them."""

from typing import Final

CHARS_PER_TOKEN: Final = 4
_PER_MESSAGE: Final = 4


def estimated_tokens(chars: int) -> int:
    """Return roughly how many tokens a text of so many characters has, framing included."""
    return -(-chars // CHARS_PER_TOKEN) + _PER_MESSAGE


def tokens_of(text: str) -> int:
    """Return roughly how many tokens a text has; none has none."""
    return estimated_tokens(len(text)) if text else 0


def estimated_output(text_chars: int) -> int:
    """Return roughly how many tokens a model has written for so many characters."""
    return -(-text_chars // CHARS_PER_TOKEN)
