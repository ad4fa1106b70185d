"""Whether requirements/ matches pyproject.toml, checked offline against the installed packages.

Starting from the dependencies in pyproject.toml, the metadata of the installed packages leads to
everything that is required here. Each package must be pinned at a version that satisfies all its
dependents, and installed at that version; nothing else may be pinned for this platform. The
installer must be the version of uv that wrote the locks.
"""

import re
import sys
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Final, NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parent.parent
_PIN: Final = re.compile(r"^([a-z0-9][^\s\\]*==[^\\]+?)\s*\\?$", re.MULTILINE)
_BUILDER: Final = "hatchling"
_HASH: Final = re.compile(r"--hash=sha256:[0-9a-f]{64}")


class Need(NamedTuple):
    """A required package and its dependent."""

    requirement: Requirement
    by: str


def problems_of(
    lock: str, needed: Iterable[Requirement], *, local: Collection[str] = ()
) -> list[str]:
    """Return a sentence for each difference between `lock` and what `needed` requires.

    `local` packages are in this repository: not pinned themselves, but what they require is.
    """
    pins = pins_of(lock)
    found: list[str] = []
    reached: set[str] = set()
    for need in _closure(needed):
        name = canonicalize_name(need.requirement.name)
        if name in local:
            continue
        reached.add(name)
        pin = pins.get(name)
        if pin is None:
            found.append(f"{name} is not pinned but required by {need.by}")
        elif not need.requirement.specifier.contains(pin, prereleases=True):
            found.append(f"{name}=={pin} is pinned but {need.by} requires {need.requirement}")
        elif _installed(name) != pin:
            found.append(f"{name}=={pin} is pinned but {_installed(name)} is installed")
    found += [f"{name} is pinned but not required" for name in sorted(pins.keys() - reached)]
    return sorted(set(found))


def pins_of(lock: str) -> Mapping[str, str]:
    """Return the version pinned for each package on this platform and interpreter."""
    pins: dict[str, str] = {}
    for line in _PIN.findall(lock):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate():
            (specifier,) = requirement.specifier
            pins[canonicalize_name(requirement.name)] = specifier.version
    return pins


def direct_problems(lock: str, needed: Iterable[Requirement]) -> list[str]:
    """Return a sentence for each of `needed` that is not pinned as required; installed or not."""
    pins = pins_of(lock)
    return [
        f"{each.name} is pinned at {pins.get(canonicalize_name(each.name))} but {each} is required"
        for each in needed
        if not each.specifier.contains(pins.get(canonicalize_name(each.name), "0"))
    ]


def unhashed(lock: str) -> list[str]:
    """Return the pins without a hash."""
    blocks = re.split(r"\n(?=\S)", lock.strip())
    return [block.splitlines()[0] for block in blocks if not _HASH.search(block)]


def installer_problems(installer: str, development: str) -> list[str]:
    """Return a sentence for each way in which the installer is not the uv of the development lock.

    The two must agree: with another version, uv would replace itself while it installs the lock.
    """
    pins, locked = pins_of(installer), pins_of(development)
    if pins.keys() != {"uv"}:
        return [f"pins {', '.join(sorted(pins)) or 'nothing'} instead of uv alone"]
    if pins["uv"] != locked.get("uv"):
        return [f"uv=={pins['uv']} is pinned but development.txt has {locked.get('uv')}"]
    return []


def _closure(needed: Iterable[Requirement]) -> Iterator[Need]:
    """Yield each requirement that applies here, and their requirements in turn."""
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
    """Check the locks, and print what is wrong and how to fix it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    production = project["project"]["dependencies"]
    embedded = project["project"]["optional-dependencies"]["embedded"]
    development = project["dependency-groups"]["development"]
    local = project["tool"]["uv"]["sources"].keys()
    locks = {path.name: path.read_text() for path in (ROOT / "requirements").glob("*.txt")}
    problems = {
        "production.txt": problems_of(locks["production.txt"], _applying(production), local=local),
        "development.txt": problems_of(
            locks["development.txt"],
            _applying([*production, *embedded, *development]),
            local=local,
        ),
        "builder.txt": problems_of(locks["builder.txt"], [Requirement(_BUILDER)]),
        "load.txt": direct_problems(
            locks["load.txt"], _applying(project["dependency-groups"]["load"])
        ),
        "installer.txt": installer_problems(locks["installer.txt"], locks["development.txt"]),
    }
    found = [f"requirements/{file}: {each}" for file, those in problems.items() for each in those]
    found += [
        f"requirements/{file}: no hash for {pin}"
        for file, lock in locks.items()
        for pin in unhashed(lock)
    ]
    print("\n".join([*found, "Run `make lock`."]) if found else "requirements: fresh")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
