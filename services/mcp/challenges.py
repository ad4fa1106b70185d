"""Challenges: what a server asks for in `WWW-Authenticate` when it refuses a request.

Everything in it is the server's choice: it is cut, and only what has the form of a scope or a URL
is used.
Source: RFC 9110, 11.6.1; RFC 6750, 3; RFC 9728, 5.1.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from services.mcp.destinations import is_web_url

_MAX_CHARS: Final = 8_192
_MAX_SCOPE_CHARS: Final = 1_000
_MAX_NAMED: Final = 10
_SHORTEST_SECRET: Final = 8
_TOKEN: Final = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # noqa: S105 -- a token of HTTP's grammar
# Parts are matched one behind the other, never searched for: the time is linear.
_PART: Final = re.compile(
    rf"""[\s,]*+({_TOKEN})(?:\s*=\s*(?:"((?:[^"\\]|\\.)*+)"|([^\s,"]++)))?""", re.DOTALL
)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,200}")


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a refusal asks for; `is_insufficient` if the token only lacks scopes."""

    scopes: tuple[str, ...] = ()
    resource_metadata: str | None = None
    is_insufficient: bool = False


def challenge_in(headers: Mapping[str, str]) -> Challenge:
    """Return what the `Bearer` challenge of a response asks for."""
    found = _parameters(headers.get("www-authenticate", "")[:_MAX_CHARS])
    url = found.get("resource_metadata", "")
    return Challenge(
        scopes=scopes_in(found.get("scope", "").split(" ")),
        resource_metadata=url if is_web_url(url) else None,
        is_insufficient=found.get("error") == "insufficient_scope",
    )


def scopes_in(words: Iterable[object]) -> tuple[str, ...]:
    """Return the words that are scopes, each once, as many as fit into a token request."""
    scopes: dict[str, None] = {}
    chars = 0
    for word in words:
        if not isinstance(word, str) or word in scopes or not _SCOPE.fullmatch(word):
            continue
        chars += len(word) + 1
        if chars > _MAX_SCOPE_CHARS:
            break
        scopes[word] = None
    return tuple(scopes)


def named(scopes: Iterable[str], *, secrets: Iterable[str]) -> str:
    """Return scopes for a sentence, without those in which a server hides one of the secrets."""
    words = [word for secret in secrets for word in secret.split() if len(word) >= _SHORTEST_SECRET]
    shown = [
        scope
        for scope in scopes
        if len(scope) < _SHORTEST_SECRET or not any(w in scope or scope in w for w in words)
    ]
    more = f" and {len(shown) - _MAX_NAMED} more" if len(shown) > _MAX_NAMED else ""
    return ", ".join(f"`{scope[:100]}`" for scope in shown[:_MAX_NAMED]) + more


def _parameters(text: str) -> dict[str, str]:
    """Return the parameters of the `Bearer` challenge, up to the first part that is malformed."""
    found: dict[str, str] = {}
    scheme, position = "", 0
    while part := _PART.match(text, position):
        position = part.end()
        name, quoted, plain = part.groups()
        if quoted is None and plain is None:
            scheme = name.lower()
        elif scheme == "bearer":
            value = plain if quoted is None else _ESCAPED.sub(r"\1", quoted)
            found.setdefault(name.lower(), value)
    return found
