"""Whether the licences of all production packages are ones that may ship with Everturn's image.

Packages name theirs as an SPDX expression, or, if they are older, as classifiers or in words. What
is in none of these forms is listed here, with what its licence file says: `make licences`.
"""

import sys
from collections.abc import Iterable, Iterator
from email.message import Message
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Final, cast

from license_expression import (  # type: ignore[import-untyped]
    ExpressionError,
    get_spdx_licensing,
)

from tests.lock_freshness import pins_of

LOCK: Final = Path(__file__).parents[2] / "requirements" / "production.txt"

ALLOWED: Final = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "CC0-1.0",
        "ISC",
        "MIT",
        "MIT-0",
        "MPL-2.0",  # changes to its own files are published; it doesn't extend to others
        "PSF-2.0",
        "Python-2.0",
        "Unlicense",
        "Zlib",
    }
)
_CLASSIFIERS: Final = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "zlib/libpng License": "Zlib",
}
_IN_WORDS: Final = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "MIT License": "MIT",
    "BSD 3-Clause": "BSD-3-Clause",
}
BY_HAND: Final = {
    "pypdfium2": "BSD-3-Clause AND Apache-2.0",  # its own files and PDFium's, with their parts
}

_licensing = get_spdx_licensing()


def expression_of(package: Message) -> str | None:
    """Return the licence that a package's metadata names, as an SPDX expression."""
    if named := package.get("License-Expression"):
        return str(named)
    prefix = "License :: "
    classifiers = [
        _CLASSIFIERS.get(each.rpartition(" :: ")[2])
        for each in package.get_all("Classifier", [])
        if each.startswith(prefix) and each != "License :: OSI Approved"
    ]
    if classifiers and all(classifiers):
        return " AND ".join(cast("list[str]", classifiers))
    in_words = str(package.get("License", "")).strip()
    return _IN_WORDS.get(in_words, in_words) or None


def problem_of(name: str, expression: str | None) -> str | None:
    """Return why a package may not ship, or None."""
    if expression is None:
        return f"{name} names no licence: read it, and add it to BY_HAND in {Path(__file__).name}"
    try:
        parsed = _licensing.parse(expression, validate=True)
    except ExpressionError:
        return f"{name} has an unknown licence, {expression[:80]!r}: read it, and add it to BY_HAND"
    if not _is_allowed(parsed):
        return f"{name} is licensed under {expression}, which may not ship: use another package"
    return None


def problems_of(names: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for each installed package that may not ship."""
    for name in sorted(names):
        try:
            found = BY_HAND.get(name) or expression_of(cast("Message", metadata(name)))
        except PackageNotFoundError:
            yield f"{name} is not installed: run `make install`"
            continue
        problem = problem_of(name, found)
        if problem:
            yield problem


def _is_allowed(parsed: object) -> bool:
    """Whether all parts of an expression may ship, or one of those that one may choose from."""
    parts = [_is_allowed(part) for part in getattr(parsed, "args", ())]
    if not parts:
        return str(getattr(parsed, "key", parsed)) in ALLOWED
    return any(parts) if getattr(parsed, "operator", "").strip() == "OR" else all(parts)


def main() -> int:
    """Print every package that may not ship; return 1 if there is one."""
    names = pins_of(LOCK.read_text()).keys()
    found = list(problems_of(names))
    print("\n".join(found) if found else f"licences: {len(names)} packages may ship")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
