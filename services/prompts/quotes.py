"""Quotes: what others wrote, as it stands in a prompt.

A quoted text can't end the tag that it stands in, and can't pass for the prompt's structure or for
another speaker: not with our tags, nor with the markers that models know from their training. Only
the prompt's form is changed: what is stored, searched and shown stays as written.
"""

import re
from html import escape
from typing import Final

CUT: Final = " [cut]"

QUOTED_BY_THEMSELVES: Final = frozenset({"knowledge_search", "recall", "remember"})
"""Tools of ours whose results have tags of ours, around quotes."""

_OUR_TAGS: Final = (
    *("memory", "memories", "passage", "knowledge", "conversation_summary", "user", "instructions"),
    "attachment",
)
# What models are trained on, or prompts of others are made of.
_WELL_KNOWN_TAGS: Final = (
    *("system", "assistant", "human", "developer", "function_calls", "function_results"),
    *("invoke", "tool_use", "tool_result", "tool_call", "tool_response", "system-reminder"),
)
_SPEAKERS: Final = ("human", "assistant", "system")
# What is drawn as nothing.
_INVISIBLE: Final = (
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    r"\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff"
)
_HIDDEN: Final = rf"[\s{_INVISIBLE}]*"
_LESS: Final = "[<\uff1c\ufe64\u2039\u3008\u27e8\u2329\u276e\u02c2]"
_SLASH: Final = "[/\uff0f\u2044\u2215\\\\]"
_BAR: Final = "[|\uff5c\u2502\u01c0\u2223]"


def _spelled(name: str) -> str:
    """Return a pattern of a name, with wide letters and with what is not seen between them."""
    wide = {letter: f"[{letter}{chr(ord(letter) + 0xFEE0)}]" for letter in name if letter.isalpha()}
    return _HIDDEN.join(wide.get(letter, re.escape(letter)) for letter in name)


def _one_of(names: tuple[str, ...]) -> str:
    return "|".join(map(_spelled, names))


def _initials(names: tuple[str, ...]) -> str:
    letters = {name[0] for name in names}
    return "".join(sorted(letters | {chr(ord(letter) + 0xFEE0) for letter in letters}))


# What may come before a name. Each part ends where the next begins: it is found in linear time.
_BEFORE: Final = rf"{_HIDDEN}(?:{_SLASH}{_HIDDEN})?"
_INITIALS: Final = _initials((*_OUR_TAGS, *_WELL_KNOWN_TAGS))
_TAG: Final = re.compile(
    # Most of what begins so is no tag of these, which its first letter tells at once.
    rf"{_LESS}(?={_BEFORE}(?:[{_INITIALS}]|{_BAR})|{_LESS}{_SLASH}?[s\uff53])"
    rf"(?={_BEFORE}(?:{_one_of(_OUR_TAGS)}"
    rf"|(?:{_one_of(_WELL_KNOWN_TAGS)})(?![{_INVISIBLE}]*[\w-])|{_spelled('antml')}|{_BAR}"
    rf"|{_LESS}{_SLASH}?{_spelled('sys')}))",
    re.IGNORECASE,
)
_BRACKET: Final = re.compile(
    # Not an index, as in `x[inst]`.
    rf"(?<![\w)\]])[\[\uff3b](?={_BEFORE}{_spelled('inst')}{_HIDDEN}[\]\uff3d])",
    re.IGNORECASE,
)
# At the start of a line, where a transcript has it, also in bold or as a heading or quote.
_SPEAKER: Final = re.compile(
    rf"^([^\w\n]*(?:{_one_of(_SPEAKERS)}){_HIDDEN}[*_]*)[:\uff1a\ufe55\ua789\u2236]",
    re.IGNORECASE | re.MULTILINE,
)


def as_data(text: str) -> str:
    """Return a text as a quote: markers of structure and of speakers are escaped as in HTML."""
    text = _BRACKET.sub("&#91;", _TAG.sub("&lt;", text))
    return _SPEAKER.sub(r"\1&#58;", text)


def as_attribute(text: str) -> str:
    """Return a text on one line as the value of an attribute, in double quotes."""
    return _BRACKET.sub("&#91;", escape(in_one_line(text)))


def in_one_line(text: str) -> str:
    """Return a text without line breaks."""
    return " ".join(text.split())


def one_line(text: str, *, limit: int) -> str:
    """Return a text on one line of at most `limit` characters, as data."""
    return cut(in_one_line(text), limit=limit)


def cut(text: str, *, limit: int) -> str:
    """Return at most `limit` characters of a text, as data; what is cut says so."""
    safe = as_data(text)
    return safe if len(safe) <= limit else safe[: limit - len(CUT)].rstrip() + CUT
