"""Parsing of expressions: what people and models write becomes a Python syntax tree.

Knows nothing of values. The text that Python parses holds only numbers, names, operators,
parentheses and commas, separated by spaces; nothing is ever given to Python's `eval`.
"""

import ast
import keyword
import re
from collections.abc import Iterator
from enum import Enum, auto
from itertools import islice, pairwise
from typing import Final, NamedTuple

from services.tools.calculator.numbers import NotationError

MAX_CHARS: Final = 1_000
_MAX_TOKENS: Final = 600
_MAX_NESTING: Final = 50

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
# A group of three after a leading zero (0,123) is a decimal comma, so it does not match.
_THOUSANDS: Final = re.compile(r"[1-9]\d{0,2}(?:,\d{3})+(?!,?\d)(?:\.\d*)?", re.ASCII)
_NAME: Final = re.compile(r"[A-Za-z]\w*", re.ASCII)
_SIGN: Final = re.compile(r"\*\*|//|[-+*/%^(),!]")
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

    @property
    def starts_value(self) -> bool:
        """Whether an operand can begin with it."""
        return self.kind is not Kind.SIGN or self.text == "("

    @property
    def ends_value(self) -> bool:
        """Whether an operand can end with it."""
        return self.kind is not Kind.SIGN or self.text == ")"


def _sign(text: str) -> Token:
    return Token(Kind.SIGN, text)


def parse(expression: str) -> tuple[ast.expr, str]:
    """Return the syntax tree of an expression and the text that its positions refer to.

    Errors: NotationError if it is not an expression, too long or nested too deeply.
    """
    text = _as_python(expression)
    try:
        return ast.parse(text, mode="eval").body, text
    except SyntaxError as error:
        near = text[max(0, (error.offset or 1) - 1) :][:20].strip()
        raise NotationError(f"The expression is malformed near `{near}`.") from error
    except (RecursionError, MemoryError) as error:
        raise NotationError("The expression is nested too deeply.") from error


def _as_python(expression: str) -> str:
    if len(expression) > MAX_CHARS:
        raise NotationError(f"The expression is longer than {MAX_CHARS:,} characters.")
    written = list(islice(_tokens(expression), _MAX_TOKENS + 1))
    if not written:
        raise NotationError("The expression is empty.")
    tokens = _with_percentages(_with_factorials(written))
    if len(tokens) > _MAX_TOKENS:
        raise NotationError("The expression has too many parts: split it into several.")
    _check_parentheses(tokens)
    _check_names(tokens)
    _check_operators(tokens)
    if not tokens[-1].ends_value:
        raise NotationError("The expression ends with an operator or a comma.")
    return " ".join(token.text for token in tokens)


def _tokens(expression: str) -> Iterator[Token]:
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
        return _sign(match.group().replace("^", "**")), match.end()
    raise NotationError(
        f"Unexpected character {text[position]!a} at position {position + 1}: "
        "use digits, + - * / // % ** !, parentheses and function names."
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


def _with_factorials(tokens: list[Token]) -> list[Token]:
    """Return the tokens with each `n!` written as a call of factorial.

    Errors: NotationError for `n!!`, which is a double factorial to some and two factorials to
    others, and for a `!` that follows no operand.
    """
    result: list[Token] = []
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.text != "!":
            result.append(token)
            continue
        if before == token:
            raise NotationError("`!!` is ambiguous: write factorial(factorial(n)) for (n!)!.")
        if before is None or not before.ends_value:
            raise NotationError("`!` must follow a number: `5!` is factorial(5).")
        start = _start_of_operand(result)
        operand = result[start:]
        result[start:] = [Token(Kind.NAME, "factorial"), _sign("("), *operand, _sign(")")]
    return result


def _start_of_operand(tokens: list[Token]) -> int:
    """Return where the operand starts that the tokens end with."""
    start, depth = len(tokens) - 1, 0
    for start in range(len(tokens) - 1, -1, -1):
        depth += (tokens[start].text == ")") - (tokens[start].text == "(")
        if depth == 0:
            break
    is_call = tokens[start].text == "(" and start > 0 and tokens[start - 1].kind is Kind.NAME
    return start - 1 if is_call and tokens[start - 1].text != "of" else start


_CLOSING: Final = {")", ","}
_AFTER_A_VALUE: Final = {")", ",", "*", "/", "//", "**"}
_BEFORE_PERCENT_OF: Final = {"(", ",", "+", "-", "*"}


def _with_percentages(tokens: list[Token]) -> list[Token]:
    """Return the tokens with each percentage written as a fraction.

    `15% of 80` and `80 * 15%` are percentages, `17 % 5` is a remainder.
    Errors: NotationError for what people read differently.
    """
    result: list[Token] = []
    for index, token in enumerate(tokens):
        following = tokens[index + 1].text if index + 1 < len(tokens) else None
        if token.text == "%" and result and result[-1].kind is Kind.NUMBER:
            _check_clarity(result, following)
            result[-1:] = _fraction(result[-1]) if _is_percent(following) else [result[-1], token]
        elif token.text == "of" and result and result[-1].text == ")":
            result.append(_sign("*") if tokens[index - 1].text == "%" else token)
        else:
            result.append(token)
    return result


def _is_percent(following: str | None) -> bool:
    return following is None or following == "of" or following in _AFTER_A_VALUE


def _fraction(number: Token) -> list[Token]:
    return [_sign("("), number, _sign("/"), Token(Kind.NUMBER, "100"), _sign(")")]


def _check_clarity(before: list[Token], following: str | None) -> None:
    number = before[-1].text[:40]
    sign = before[-2].text if len(before) > 1 else "("
    if following in {"+", "-"}:
        raise NotationError(
            f"`{number} % {following}` is ambiguous: write mod(x, y) for a remainder, "
            f"or ({number} / 100) for a percentage."
        )
    if following == "of" and sign not in _BEFORE_PERCENT_OF:
        raise NotationError(f"Put parentheses around `{number}% of …`.")
    is_added = sign in {"+", "-"} and len(before) > 2 and before[-3].ends_value
    if is_added and (following is None or following in _CLOSING):
        raise NotationError(
            f"`{sign} {number}%` is ambiguous: write `{sign} {number}% of …` "
            "to say what it is a percentage of."
        )


def _check_parentheses(tokens: list[Token]) -> None:
    depth = 0
    for token in tokens:
        depth += (token.text == "(") - (token.text == ")")
        if depth < 0:
            raise NotationError("Unmatched closing parenthesis.")
        if depth > _MAX_NESTING:
            raise NotationError("The expression is nested too deeply.")
    if depth:
        raise NotationError("Missing closing parenthesis.")


def _check_names(tokens: list[Token]) -> None:
    for token in tokens:
        if token.text == "of":
            raise NotationError("`of` is only allowed after a percentage: `15% of 80`.")
        if keyword.iskeyword(token.text) or token.text in {"true", "false", "none"}:
            raise NotationError(f"`{token.text}` is not supported: only arithmetic is.")


def _check_operators(tokens: list[Token]) -> None:
    for left, right in pairwise(tokens):
        is_call = left.kind is Kind.NAME and right.text == "("
        if left.ends_value and right.starts_value and not is_call:
            raise NotationError(
                f"Missing operator between `{left.text[:40]}` and `{right.text[:40]}`: "
                "write multiplication as *."
            )
