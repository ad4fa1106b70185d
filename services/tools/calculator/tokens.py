"""Owns the words of an expression: splits a text into numbers, names and signs."""

import re
from collections.abc import Iterator
from enum import Enum, auto
from typing import Final, NamedTuple

from services.tools.calculator.errors import NotationError

_SYMBOLS: Final = str.maketrans(
    {
        "\N{MULTIPLICATION SIGN}": "*",
        "\N{DOT OPERATOR}": "*",
        "\N{MIDDLE DOT}": "*",
        "\N{DIVISION SIGN}": "/",
        "\N{MINUS SIGN}": "-",
        "\N{EN DASH}": "-",
        "\N{NO-BREAK SPACE}": " ",
        "\N{NARROW NO-BREAK SPACE}": " ",
        "\N{GREEK SMALL LETTER PI}": "pi",
    }
)
_NUMBER: Final = re.compile(r"(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
# A group of three after a leading zero (0,123) is somebody's decimal comma, so it does not match.
_THOUSANDS: Final = re.compile(r"[1-9]\d{0,2}(?:,\d{3})+(?!,?\d)(?:\.\d*)?", re.ASCII)
_NAME: Final = re.compile(r"[A-Za-z]\w*", re.ASCII)
_SIGN: Final = re.compile(r"\*\*|//|[-+*/%^(),]")
_LEADING_ZERO: Final = re.compile(r"0[\d_]", re.ASCII)


class Kind(Enum):
    """What a token is."""

    NUMBER = auto()
    NAME = auto()
    SIGN = auto()


class Token(NamedTuple):
    """A number, a name or a sign, spelled as Python spells it."""

    kind: Kind
    text: str


def tokens(expression: str) -> Iterator[Token]:
    """Yield the tokens of an expression, names in lower case.

    Errors: NotationError for a character that no expression holds.
    """
    text = expression.translate(_SYMBOLS)
    calls: list[bool] = []
    previous: Token | None = None
    position = _after_spaces(text, 0)
    while position < len(text):
        token, end = _next(text, position, commas_group=not any(calls))
        _note_parenthesis(calls, token, previous)
        yield token
        previous, position = token, _after_spaces(text, end)


def _next(text: str, position: int, *, commas_group: bool) -> tuple[Token, int]:
    if commas_group and (match := _THOUSANDS.match(text, position)):
        return Token(Kind.NUMBER, match.group().replace(",", "")), match.end()
    if match := _NUMBER.match(text, position):
        return _number(match.group()), match.end()
    if match := _NAME.match(text, position):
        return Token(Kind.NAME, match.group().lower()), match.end()
    if match := _SIGN.match(text, position):
        return Token(Kind.SIGN, match.group().replace("^", "**")), match.end()
    raise NotationError(
        f"The character {text[position]!a} at position {position + 1} is not understood: "
        "use digits, + - * / // % **, parentheses and function names."
    )


def _number(text: str) -> Token:
    if _LEADING_ZERO.match(text):
        raise NotationError(
            f"The number {text[:40]} starts with a zero: write numbers without leading zeros, "
            "and without thousands separators inside function calls."
        )
    return Token(Kind.NUMBER, text)


def _note_parenthesis(calls: list[bool], token: Token, previous: Token | None) -> None:
    """Keep track of whether a comma separates arguments here."""
    if token.text == "(":
        is_named = previous is not None and previous.kind is Kind.NAME
        calls.append(is_named and previous != (Kind.NAME, "of"))
    elif token.text == ")" and calls:
        calls.pop()


def _after_spaces(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position
