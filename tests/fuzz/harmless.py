"""Keeps what is made up from running programs and from leaving this machine."""

from typing import Any, Final
from urllib.parse import urlsplit

from tests.fuzz.operations import GeneratedCase

_NO_PROGRAM: Final = "/nonexistent/"
_CLOSED_PORT: Final = "127.0.0.1:9"


def make_harmless(case: GeneratedCase) -> None:
    """Point commands of a request's body to no program, and addresses to where nothing listens."""
    if isinstance(case.body, dict) and not case.body.keys().isdisjoint({"command", "url"}):
        case.body = tame(case.body)


def tame(body: dict[str, Any]) -> dict[str, Any]:
    """Return a body in which `command` and `url` are harmless; what is no text stays."""
    tamed = dict(body)
    command, url = tamed.get("command"), tamed.get("url")
    if isinstance(command, str) and command:
        tamed["command"] = f"{_NO_PROGRAM}{command}"
    if isinstance(url, str) and "://" in url:
        tamed["url"] = _elsewhere(url)
    return tamed


def _elsewhere(url: str) -> str:
    try:
        return urlsplit(url)._replace(netloc=_CLOSED_PORT).geturl()
    except ValueError:
        return url
