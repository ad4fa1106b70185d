"""Are the locked requirements those of pyproject.toml? Told from what is installed, offline.

From each dependency that pyproject.toml names, the metadata of the installed packages leads to
all that is needed here. Every one of them must be pinned, at a version that satisfies whoever
needs it, and installed at that version; and nothing else may be pinned for this platform.
"""

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Final, NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parent.parent
_PIN: Final = re.compile(r"^([a-z0-9][^\s\\]*==[^\\]+?)\s*\\?$", re.MULTILINE)
_HASH: Final = re.compile(r"--hash=sha256:[0-9a-f]{64}")


class Need(NamedTuple):
    """A package that is needed, and by whom."""

    requirement: Requirement
    by: str


def problems_of(lock: str, needed: Iterable[Requirement]) -> list[str]:
    """Return a sentence for each way in which `lock` is not what `needed` asks for."""
    pins = pins_of(lock)
    found: list[str] = []
    reached: set[str] = set()
    for need in _closure(needed):
        name = canonicalize_name(need.requirement.name)
        reached.add(name)
        pin = pins.get(name)
        if pin is None:
            found.append(f"{name} is not pinned; {need.by} needs it")
        elif not need.requirement.specifier.contains(pin, prereleases=True):
            found.append(f"{name}=={pin} is pinned; {need.by} needs {need.requirement}")
        elif _installed(name) != pin:
            found.append(f"{name}=={pin} is pinned; {_installed(name)} is installed")
    found += [f"{name} is pinned; nobody needs it" for name in sorted(pins.keys() - reached)]
    return sorted(set(found))


def pins_of(lock: str) -> Mapping[str, str]:
    """Return the version that is pinned for each package of this platform and interpreter."""
    pins: dict[str, str] = {}
    for line in _PIN.findall(lock):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate():
            (specifier,) = requirement.specifier
            pins[canonicalize_name(requirement.name)] = specifier.version
    return pins


def unhashed(lock: str) -> list[str]:
    """Return the pins that no hash follows."""
    blocks = re.split(r"\n(?=\S)", lock.strip())
    return [block.splitlines()[0] for block in blocks if not _HASH.search(block)]


def _closure(needed: Iterable[Requirement]) -> Iterator[Need]:
    """Yield each requirement that applies here, then those of what it names, and so on."""
    waiting = [Need(requirement, "pyproject.toml") for requirement in needed]
    seen: set[tuple[str, str, str]] = set()
    while waiting:
        need = waiting.pop()
        requirement = need.requirement
        for extra in ("", *sorted(requirement.extras)):
            key = (requirement.name, extra, str(requirement.specifier))
            if key not in seen:
                seen.add(key)
                waiting += _needs_of(requirement.name, extra)
        yield need


def _needs_of(name: str, extra: str) -> Iterator[Need]:
    if _installed(name) is None:
        return
    for text in requires(name) or ():
        requirement = Requirement(text)
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        only_by_extra = extra and (
            requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        )
        if applies and not only_by_extra:
            yield Need(requirement, name)


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _applying(texts: Iterable[str]) -> list[Requirement]:
    requirements = map(Requirement, texts)
    return [each for each in requirements if each.marker is None or each.marker.evaluate()]


def main() -> int:
    """Check both files; say what is wrong, and how to put it right."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    production = project["project"]["dependencies"]
    embedded = project["project"]["optional-dependencies"]["embedded"]
    development = project["dependency-groups"]["development"]
    found = []
    for file, texts in (
        ("production.txt", production),
        ("development.txt", [*production, *embedded, *development]),
    ):
        lock = (ROOT / "requirements" / file).read_text()
        found += [f"requirements/{file}: {each}" for each in problems_of(lock, _applying(texts))]
        found += [f"requirements/{file}: no hash for {each}" for each in unhashed(lock)]
    print("\n".join([*found, "Run `make lock`."]) if found else "requirements: fresh")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
