"""Finds arithmetic in what a user wrote; computes nothing."""

import ast
import re

_SPOKEN = (
    (re.compile(r"(\d)\s*%\s*of\s+(?=\d)", re.IGNORECASE), r"\1 / 100 * "),
    (re.compile(r"(?<=\d)\s*[x\N{MULTIPLICATION SIGN}]\s*(?=[\d(])", re.IGNORECASE), " * "),
    (re.compile(r"\bplus\b", re.IGNORECASE), "+"),
    (re.compile(r"\bminus\b", re.IGNORECASE), "-"),
    (re.compile(r"\b(?:times|multiplied by)\b", re.IGNORECASE), "*"),
    (re.compile(r"\bdivided by\b", re.IGNORECASE), "/"),
    (re.compile(r"\bto the power of\b", re.IGNORECASE), "**"),
    (re.compile(r"\N{MULTIPLICATION SIGN}"), "*"),
    (re.compile(r"\N{DIVISION SIGN}"), "/"),
    (re.compile(r"\N{MINUS SIGN}"), "-"),
    (re.compile(r"\^"), "**"),
    (re.compile(r"(?<=\d),(?=\d{3}\b)"), ""),
)
_DATE = re.compile(r"\b\d{1,4}([-/.])\d{1,2}\1\d{1,4}\b|\b24/7\b")
_WORD = re.compile(r"\S*[^\W\d]\S*")
_RUN = re.compile(r"[\d.()+\-*/%\s]*\d[\d.()+\-*/%\s]*")
_TOKEN = re.compile(r"\d+(?:\.\d+)*|\*\*|[()+\-*/%]")
_MAX_CHARS = 2_000
_MAX_TOKENS = 40
_ALLOWED = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.Constant, ast.operator, ast.unaryop)


def find_arithmetic(text: str) -> str | None:
    """Return the first arithmetic expression in the text, as a calculator takes it, or None.

    Only the first two thousand characters are looked at, so that a long text stays cheap.
    """
    plain = _DATE.sub(";", text[:_MAX_CHARS])
    for spoken, sign in _SPOKEN:
        plain = spoken.sub(sign, plain)
    for run in _RUN.findall(_WORD.sub(";", plain)):
        if expression := _longest_expression(_TOKEN.findall(run)[:_MAX_TOKENS]):
            return expression
    return None


def _longest_expression(tokens: list[str]) -> str | None:
    """Return the longest stretch of tokens that is an expression, the first of equals."""
    for length in range(len(tokens), 2, -1):
        for start in range(len(tokens) - length + 1):
            stretch = tokens[start : start + length]
            if _may_be_expression(stretch) and _is_expression("".join(stretch)):
                return _spaced(stretch)
    return None


def _may_be_expression(tokens: list[str]) -> bool:
    """Spare the parser what can be seen at the edges."""
    return tokens[0] not in {"*", "**", "/", "%", ")"} and (
        tokens[-1][0].isdigit() or tokens[-1] == ")"
    )


def _is_expression(source: str) -> bool:
    try:
        tree = ast.parse(source, mode="eval")
    except SyntaxError:
        return False
    nodes = list(ast.walk(tree))
    return any(isinstance(node, ast.BinOp) for node in nodes) and all(
        isinstance(node, _ALLOWED) for node in nodes
    )


def _spaced(tokens: list[str]) -> str:
    return re.sub(r"\( | (?=\))", lambda found: found[0].strip(), " ".join(tokens))
