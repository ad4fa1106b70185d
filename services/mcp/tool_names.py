"""Names of MCP servers' tools: a legal one for models, settings and approvals, for any name there.

Servers use dots, slashes and more, and names of any length. A tool keeps the name that it once got
for as long as the server lists it, whatever is listed besides: settings and approvals hang on it.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import count
from typing import Final, TypeVar

from schema.tools import LONGEST_TOOL_NAME, SERVER_SEPARATOR
from services.tools.masks import MASK

MAX_TOOLS: Final = 500
"""The tools that are kept of a server's."""
MAX_NAME_ON_SERVER: Final = 256

_ILLEGAL: Final = re.compile(r"[^a-zA-Z0-9_-]+")
_DIGEST_CHARS: Final = 8

T = TypeVar("T")


def first_by_name(tools: Iterable[T], name_of: Callable[[T], str], *, limit: int) -> list[T]:
    """Return the tools as they are listed, or of too many the first by name."""
    listed = list(tools)
    if len(listed) <= limit:
        return listed
    # Those without a name can't be used.
    return sorted(listed, key=lambda tool: (not name_of(tool), name_of(tool)))[:limit]


def problem_of_name(name: str) -> str | None:
    """Return why a tool can't be called by its name, or None."""
    if not name or not name.isprintable() or len(name) > MAX_NAME_ON_SERVER:
        return f"invalid name: use 1 to {MAX_NAME_ON_SERVER} printable characters"
    return "its name has a secret of the server in it" if MASK in name else None


def assigned_names(
    server: str, listed: Collection[str], *, stored: Mapping[str, str]
) -> dict[str, str]:
    """Return the name of each tool, by its name on the server.

    `stored` are the names of the tools that the server listed before: they keep them, and none
    goes to another tool. A legal name stays as it is. Any other gets its illegal characters
    replaced; where that is too long, or two get the same, a digest of the name is added.
    The order in which tools are listed makes no difference.
    """
    names = {tool: stored[tool] for tool in listed if tool in stored}
    taken = set(stored.values())
    unnamed = sorted({*listed} - names.keys())
    longest = LONGEST_TOOL_NAME - len(server + SERVER_SEPARATOR)
    legible = {tool: _legible(tool) for tool in unnamed}
    wanted = Counter(legible.values())
    legal = [tool for tool in unnamed if tool == legible[tool]]
    alone = [tool for tool in unnamed if wanted[legible[tool]] == 1]
    for tool in (*legal, *alone):
        name = legible[tool]
        if tool not in names and name not in taken and 0 < len(name) <= longest:
            names[tool] = name
            taken.add(name)
    for tool in unnamed:
        if tool not in names:
            names[tool] = _with_digest(tool, legible[tool], longest=longest, taken=taken)
            taken.add(names[tool])
    return names


def _legible(tool: str) -> str:
    if not _ILLEGAL.search(tool):
        return tool
    letters = "".join(
        character
        for character in unicodedata.normalize("NFKD", tool)
        if not unicodedata.combining(character)
    )
    return _ILLEGAL.sub("_", letters).strip("_")


def _with_digest(tool: str, legible: str, *, longest: int, taken: Collection[str]) -> str:
    beginning = (legible or "tool")[: longest - _DIGEST_CHARS - 1]
    # A second round takes two names with the same digest, or one that looks like it.
    rounds = (f"{tool}\0{number}" if number else tool for number in count())
    digests = (hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_CHARS] for text in rounds)
    return next(name for digest in digests if (name := f"{beginning}_{digest}") not in taken)
