"""The provider's cache of prompts, by its rules.

A request may be continued from where an earlier one had a mark, if all of it up to there is the
same: tools, then the system prompt, then the messages. From each mark, at most 20 blocks are
looked at, itself included, for such a place. What is shorter than the model's least size is never
cached, and nothing is said of it.
Source: https://platform.claude.com/docs/en/build-with-claude/prompt-caching
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from workers.demo_model.answers import Usage, chars_of, input_tokens_of, tokens_of
from workers.demo_model.prompt import JsonObject, content_blocks

LOOK_BACK = 20
LEAST_TOKENS = {"haiku": 4_096, "sonnet": 1_024, "opus": 512}
"""By the family of the model: what the newest ones of each take."""
_LIFETIME_S = 300.0


@dataclass(frozen=True, slots=True)
class _Place:
    """A place behind a block: what stands before it, and how long that is."""

    prefix: bytes
    tokens: int
    is_marked: bool


class PrefixCache:
    """What the model has cached. Units: `clock` counts seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[bytes, float] = {}

    def take(self, body: JsonObject) -> Usage:
        """Return the usage of a request's prompt, and cache what it marks."""
        now, least = self._clock(), _least_tokens(body["model"])
        places = list(_places(body))
        marks = [at for at, place in enumerate(places) if place.is_marked]
        read = max((self._found(places, mark, now) for mark in marks), default=0)
        written = max([read, *(places[at].tokens for at in marks if places[at].tokens >= least)])
        for at in marks:
            if places[at].tokens >= least:
                self._until[places[at].prefix] = now + _LIFETIME_S
        return Usage(
            input_tokens=input_tokens_of(body) - written,
            cache_creation_input_tokens=written - read,
            cache_read_input_tokens=read,
        )

    def _found(self, places: list[_Place], mark: int, now: float) -> int:
        for at in range(mark, max(-1, mark - LOOK_BACK), -1):
            place = places[at]
            if self._until.get(place.prefix, 0.0) > now:
                self._until[place.prefix] = now + _LIFETIME_S
                return place.tokens
        return 0


def _least_tokens(model: str) -> int:
    return next((least for name, least in LEAST_TOKENS.items() if name in model), 1_024)


def _places(body: JsonObject) -> Iterator[_Place]:
    so_far, chars = sha256(body["model"].encode()), 0
    for kind, block in _blocks(body):
        plain = {name: value for name, value in block.items() if name != "cache_control"}
        so_far.update(f"\n{kind} {json.dumps(plain, sort_keys=True)}".encode())
        chars += chars_of(plain if kind == "tool" else [plain])
        yield _Place(so_far.digest(), tokens_of(chars), "cache_control" in block)


def _blocks(body: JsonObject) -> Iterator[tuple[str, dict[str, Any]]]:
    for tool in body.get("tools") or ():
        yield "tool", tool
    for block in content_blocks(body.get("system") or []):
        yield "system", block
    for message in body["messages"]:
        for block in content_blocks(message["content"]):
            yield message["role"], block
