"""Keeps generated requests from running programs and from leaving this machine."""

from typing import Any, Final
from urllib.parse import urlsplit

from tests.fuzz.operations import GeneratedCase

_NO_PROGRAM: Final = "/nonexistent/"
_CLOSED_PORT: Final = "127.0.0.1:9"


def make_harmless(case: GeneratedCase) -> None:
    """Point commands in a request's body to no program, and URLs to a closed port."""
    if isinstance(case.body, dict) and not case.body.keys().isdisjoint({"command", "url"}):
        case.body = tame(case.body)


def tame(body: dict[str, Any]) -> dict[str, Any]:
    """Return a body with harmless `command` and `url`; values that are not text stay."""
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
