"""Owns percentages: `15% of 80` and `80 * 15%` become arithmetic, `17 % 5` stays a remainder."""

from typing import Final

from services.tools.calculator.errors import NotationError
from services.tools.calculator.tokens import Kind, Token

_CLOSING: Final = {")", ","}
_AFTER_A_VALUE: Final = {")", ",", "*", "/", "//", "**"}
_BEFORE_PERCENT_OF: Final = {"(", ",", "+", "-", "*"}


def spelled_out(tokens: list[Token]) -> list[Token]:
    """Return the tokens with each percentage written as a fraction.

    Errors: NotationError where people disagree about what is meant.
    """
    result: list[Token] = []
    for index, token in enumerate(tokens):
        following = tokens[index + 1].text if index + 1 < len(tokens) else None
        if token.text == "%" and result and result[-1].kind is Kind.NUMBER:
            _check_clarity(result, following)
            result[-1:] = _fraction(result[-1]) if _is_percent(following) else [result[-1], token]
        elif token.text == "of" and result and result[-1].text == ")":
            result.append(Token(Kind.SIGN, "*") if tokens[index - 1].text == "%" else token)
        else:
            result.append(token)
    return result


def _is_percent(following: str | None) -> bool:
    return following is None or following == "of" or following in _AFTER_A_VALUE


def _fraction(number: Token) -> list[Token]:
    signs = {text: Token(Kind.SIGN, text) for text in "(/)"}
    return [signs["("], number, signs["/"], Token(Kind.NUMBER, "100"), signs[")"]]


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
    is_added = sign in {"+", "-"} and _ends_value(before[:-2])
    if is_added and (following is None or following in _CLOSING):
        raise NotationError(
            f"`{sign} {number}%` is ambiguous: write `{sign} {number}% of …` "
            "with what it is a part of."
        )


def _ends_value(tokens: list[Token]) -> bool:
    return bool(tokens) and (tokens[-1].kind is not Kind.SIGN or tokens[-1].text == ")")
