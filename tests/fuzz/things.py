"""What exists for an account: found by calling what creates and what lists, whatever that is."""

import re
from collections import defaultdict
from typing import Any, Final

_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_WORD: Final = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+")
_NAMES: Final = ("name", "number", "version", "n", "id")


class Things:
    """The objects that an account has met in answers, by their noun: `chat`, `turn`, `memory`."""

    def __init__(self, *, spared: set[str] | None = None) -> None:
        self._spared = spared or set()
        self._found: dict[str, list[dict[str, Any]]] = defaultdict(list)

    def learn(self, path: str, answer: object) -> None:
        """Keep the objects of an answer from `path`, and those that they name."""
        data = answer.get("data") if isinstance(answer, dict) else None
        for item in data if isinstance(data, list) else [data]:
            if isinstance(item, dict):
                self._keep(_noun(_last_static(path)), item)
                self._look_into(item)

    def values(self, path: str, parameter: str) -> list[str]:
        """Return what there is for one parameter of a path."""
        before = path[: path.index("{" + parameter + "}")]
        nouns = {_noun(parameter.removesuffix("_id")), _noun(_last_static(before))}
        found = [item for noun in sorted(nouns) for item in self._found[noun]]
        values = [_value(item, parameter) for item in found]
        return [value for value in dict.fromkeys(values) if value and value not in self._spared]

    def _keep(self, noun: str, item: dict[str, Any]) -> None:
        if item not in self._found[noun]:
            self._found[noun].append(item)

    def _look_into(self, item: dict[str, Any]) -> None:
        for key, value in item.items():
            inside = value if isinstance(value, list) else [value]
            for each in inside:
                if isinstance(each, dict):
                    self._keep(_noun(key), each)
                    self._look_into(each)
            if key.endswith("Id") and isinstance(value, str):
                self._keep(_noun(key.removesuffix("Id")), {"id": value})


def parameters_of(path: str) -> list[str]:
    """Return the names of a path's parameters."""
    return [str(name) for name in _PARAMETER.findall(path)]


def _last_static(path: str) -> str:
    return [part for part in path.split("/") if part and "{" not in part][-1]


def _noun(words: str) -> str:
    """Return the last word of a name, as one of its kind: `mcp-servers` is a `server`."""
    found: list[str] = _WORD.findall(words)
    word = (found or [words])[-1].lower()
    if word.endswith("ies"):
        return f"{word[:-3]}y"
    return word.removesuffix("s")


def _value(item: dict[str, Any], parameter: str) -> str | None:
    if parameter == "id" or parameter.endswith("_id"):
        names: tuple[str, ...] = ("id",)
    else:
        names = (parameter, *_NAMES)
    value = next((item[name] for name in names if name in item), None)
    return None if value is None else str(value)
