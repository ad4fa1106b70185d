"""Masks: what a tool returns, without the secrets that were configured for it.

A server may repeat its key in an error or a result, where a user, the model and the model's
provider would read it. That is an accident to be caught, not an attack: a server that wants to
give its own key away can.
"""

import base64
import binascii
import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Final
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

MASK: Final = "[…]"

_SHORTEST: Final = 4
_SHORTEST_ENCODED: Final = 6
_SHORTEST_UNNAMED: Final = 8
_SHORTEST_PART: Final = 8
_SECRET_NAME: Final = re.compile(
    r"key|token|secret|pass|pwd|auth|cred|private|cookie|session|dsn|jwt|signature|api",
    re.IGNORECASE,
)
# Values that say where or how, and are no secret under a name that does not say so.
_HARMLESS: Final = re.compile(
    r"[./~][^\s?@]*|[\d.,:]+|[a-z]+|[A-Z]+|[A-Za-z]+\d?([-_. ][a-z0-9]{1,10}){1,3}"
    r"|[a-z]{2}_[A-Z]{2}[-.\w]*|[\w.+-]+@[\w.-]+|[a-z]+://[^\s?@]*"
)
_SCHEME: Final = re.compile(r"(?:basic|bearer|token|apikey|api-key|digest)\s+(.+)", re.IGNORECASE)


class SecretMask:
    """Replaces secrets in texts, as they are and in the encodings that programs use."""

    def __init__(self, secrets: Iterable[str]) -> None:
        """Take secrets; parts of them count as well, but nothing that is as short as a word."""
        parts = {part for secret in secrets for part in _parts(secret) if len(part) >= _SHORTEST}
        forms = {form for part in parts for form in _forms(part)}
        # A secret may begin like another.
        self._forms = sorted(forms, key=lambda form: (-len(form), form))

    def __call__(self, text: str) -> str:
        """Return the text without the secrets."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, MASK)
        return text

    def cut(self, text: str, limit: int) -> str:
        """Return a text without the secrets; of a longer one the first `limit` characters or less.

        Cut before it is masked, a text could end with half a secret.
        """
        longest = len(self._forms[0]) if self._forms else 0
        if len(text) <= limit + longest:
            return self(text)
        masked = self(text[: limit + longest])
        return masked[: len(masked) - longest] + "…"


NO_SECRETS: Final = SecretMask(())


def configured_secrets(values: Mapping[str, str]) -> Iterator[str]:
    """Yield the secrets among an environment's variables or a request's headers."""
    for name, value in values.items():
        is_named = _SECRET_NAME.search(name) is not None
        if is_named or (len(value) >= _SHORTEST_UNNAMED and not _HARMLESS.fullmatch(value)):
            yield value


def secrets_of_url(url: str) -> Iterator[str]:
    """Yield the secrets that a URL may hold."""
    with suppress(ValueError):
        split = urlsplit(url)
        if split.password:
            yield unquote(split.password)
        for _, value in parse_qsl(split.query):
            if len(value) >= _SHORTEST_PART:
                yield value


def _parts(secret: str) -> Iterator[str]:
    """Yield a secret, and what is secret in it."""
    yield secret.strip()
    scheme = _SCHEME.fullmatch(secret.strip())
    if scheme is not None:
        yield scheme[1]
        with suppress(binascii.Error, ValueError):
            # What it encodes may be no secret, unless it is `user:password`.
            yield base64.b64decode(scheme[1], validate=True).decode().partition(":")[2]
    if "://" in secret:
        yield from secrets_of_url(secret)
    if secret.lstrip().startswith("{"):
        yield from _parts_of_json(secret)
    for line in secret.splitlines()[1:-1]:
        # Those of a PEM file, of which each is as secret as the whole.
        if len(line) >= 4 * _SHORTEST_PART:
            yield line


def _parts_of_json(secret: str) -> Iterator[str]:
    with suppress(ValueError, RecursionError):
        parsed = json.loads(secret)
        if isinstance(parsed, dict):
            strings = {name: value for name, value in parsed.items() if isinstance(value, str)}
            for value in configured_secrets(strings):
                yield value
                yield from (line for line in value.splitlines()[1:-1] if len(line) >= 32)


def _forms(secret: str) -> Iterator[str]:
    """Yield the encodings of a secret, alone or in the midst of what is encoded with it."""
    content = secret.encode("utf-8", "replace")
    yield secret
    for ascii_only in (True, False):
        escaped = json.dumps(secret, ensure_ascii=ascii_only)[1:-1]
        yield escaped
        yield escaped.replace("/", "\\/")
    yield html.escape(secret)
    for quoted in (quote(content, safe=""), quote(content), quote_plus(content)):
        yield quoted
        yield re.sub(r"%[0-9A-F]{2}", lambda code: code[0].lower(), quoted)
    yield content.hex()
    yield content.hex().upper()
    for before in range(3):
        # Of what stands before it, as in `user:secret`, only the length matters, modulo three.
        encoded = base64.b64encode(bytes(before) + content).rstrip(b"=").decode()
        is_whole = (before + len(content)) % 3 == 0
        inner = encoded[(0, 2, 3)[before] : len(encoded) if is_whole else -1]
        if len(inner) >= _SHORTEST_ENCODED:
            yield inner
            yield inner.translate(_URL_SAFE)


_URL_SAFE: Final = str.maketrans("+/", "-_")
