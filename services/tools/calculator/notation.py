"""Owns the spelling of expressions: turns what people and models write into Python's grammar.

Knows nothing of values. What leaves here holds only numbers, names, operators, parentheses and
commas, each separated by a space.
"""

import ast
import keyword
from itertools import islice, pairwise
from typing import Final

from services.tools.calculator.errors import NotationError
from services.tools.calculator.percentages import spelled_out
from services.tools.calculator.tokens import Kind, Token, tokens

MAX_CHARS: Final = 1_000
_MAX_TOKENS: Final = 600
_MAX_NESTING: Final = 50


def parse(expression: str) -> tuple[ast.expr, str]:
    """Return the syntax tree of an expression and the text that its positions refer to.

    Errors: NotationError for what is no expression, or too long or too nested a one.
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
    words = spelled_out(list(islice(tokens(expression), _MAX_TOKENS + 1)))
    if not words:
        raise NotationError("The expression is empty.")
    if len(words) > _MAX_TOKENS:
        raise NotationError("The expression has too many parts: split it into several.")
    _check_parentheses(words)
    _check_names(words)
    _check_operators(words)
    if not _ends_value(words[-1]):
        raise NotationError("The expression ends with an operator or a comma.")
    return " ".join(word.text for word in words)


def _check_parentheses(words: list[Token]) -> None:
    depth = 0
    for word in words:
        depth += (word.text == "(") - (word.text == ")")
        if depth < 0:
            raise NotationError("There is a closing parenthesis without an opening one.")
        if depth > _MAX_NESTING:
            raise NotationError("The expression is nested too deeply.")
    if depth:
        raise NotationError("A closing parenthesis is missing.")


def _check_names(words: list[Token]) -> None:
    for word in words:
        if word.text == "of":
            raise NotationError("`of` is understood after a percentage only: `15% of 80`.")
        if keyword.iskeyword(word.text) or word.text in {"true", "false", "none"}:
            raise NotationError(f"`{word.text}` is not understood: only arithmetic is.")


def _check_operators(words: list[Token]) -> None:
    for left, right in pairwise(words):
        is_call = left.kind is Kind.NAME and right.text == "("
        if _ends_value(left) and _starts_value(right) and not is_call:
            raise NotationError(
                f"An operator is missing between `{left.text[:40]}` and `{right.text[:40]}`: "
                "write multiplication as *."
            )


def _ends_value(word: Token) -> bool:
    return word.kind is not Kind.SIGN or word.text == ")"


def _starts_value(word: Token) -> bool:
    return word.kind is not Kind.SIGN or word.text == "("
