"""What is read of the machine: CPU and memory of whole process trees, and how noisy it is."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import psutil

_ADDITIONS: Final = 1_000_000
_STEAL: Final = 7
"""The place of stolen time among the numbers of /proc/stat."""


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """CPU that each named tree of processes has used. Units: milliseconds."""

    by_name: Mapping[str, float]

    @classmethod
    def now(cls, pids: Mapping[str, int]) -> "CpuTimes":
        """Read the counters of each tree; a root below another one is counted as its own."""
        return cls(
            {name: sum(map(_process_ms, tree)) for name, tree in process_trees(pids).items()}
        )

    def since(self, before: "CpuTimes") -> "CpuTimes":
        """Return what was used from `before` to this moment."""
        return CpuTimes(
            {name: ms - before.by_name.get(name, 0.0) for name, ms in self.by_name.items()}
        )

    def plus(self, other: "CpuTimes") -> "CpuTimes":
        """Return the sum of two intervals of the same processes."""
        names = self.by_name.keys() | other.by_name.keys()
        return CpuTimes(
            {
                name: self.by_name.get(name, 0.0) + other.by_name.get(name, 0.0)
                for name in sorted(names)
            }
        )

    def per(self, count: int) -> "CpuTimes":
        """Return the share of each of `count` turns."""
        return CpuTimes({name: ms / count for name, ms in self.by_name.items()})

    @property
    def total(self) -> float:
        """The sum over all trees."""
        return sum(self.by_name.values())


def process_trees(pids: Mapping[str, int]) -> dict[str, list[psutil.Process]]:
    """Return each root with its descendants, without those that are roots or below another one."""
    children: defaultdict[int, list[psutil.Process]] = defaultdict(list)
    for process in psutil.process_iter(["ppid"]):
        children[process.info["ppid"]].append(process)
    roots = set(pids.values())

    def below(pid: int) -> Iterator[psutil.Process]:
        for child in children[pid]:
            if child.pid not in roots:
                yield child
                yield from below(child.pid)

    trees: dict[str, list[psutil.Process]] = {}
    for name, pid in pids.items():
        with suppress(psutil.NoSuchProcess):
            trees[name] = [psutil.Process(pid), *below(pid)]
    return trees


def _process_ms(process: psutil.Process) -> float:
    # The counters of a child go to its parent when it ends, so none is lost between two readings.
    with suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return 1000 * (times.user + times.system + times.children_user + times.children_system)
    return 0.0


def megabytes(root: psutil.Process) -> float:
    """Return the memory of a tree, with what its processes share counted once."""
    return sum(map(_proportional_mb, [root, *root.children(recursive=True)]))


def megabytes_of(pids: Mapping[str, int]) -> float:
    """Return the memory of several trees, with what any of their processes share counted once."""
    trees = process_trees(pids)
    return sum(_proportional_mb(process) for tree in trees.values() for process in tree)


def _proportional_mb(process: psutil.Process) -> float:
    with suppress(psutil.NoSuchProcess):
        return float(process.memory_full_info().pss) / 1e6
    return 0.0


class Noise:
    """How steady the machine was: read it now and then, and describe it at the end."""

    def __init__(self) -> None:
        self._paces: list[float] = []
        self._begun = _clock_ticks()

    def read(self) -> None:
        """Time a loop: a shared machine is twice as fast at times."""
        self._paces.append(_pace_ms())

    def describe(self) -> str:
        """Return what the readings say."""
        ticks = [now - before for now, before in zip(_clock_ticks(), self._begun, strict=True)]
        stolen = f"{100 * ticks[_STEAL] / max(1, sum(ticks)):.1f} %" if ticks else "unknown"
        middle = median(self._paces)
        spread = 100 * (max(self._paces) - min(self._paces)) / middle
        listed = ", ".join(f"{pace:.0f}" for pace in self._paces)
        return (
            f"Noise of the machine: {stolen} of its time was taken by other virtual machines; a "
            f"loop of a million additions in Python took {listed} ms of CPU (spread {spread:.0f} "
            "%), before the first measurement and after each section."
        )


def _pace_ms() -> float:
    begun = time.process_time()
    total = 0
    for number in range(_ADDITIONS):
        total += number
    return (time.process_time() - begun) * 1000


def _clock_ticks() -> list[int]:
    """Return the machine's time by kind, or nothing where the kernel does not say."""
    file = Path("/proc/stat")
    if not file.exists():
        return []
    # Guests' time, behind the first eight, is part of the users'.
    return [int(number) for number in file.read_text().splitlines()[0].split()[1:9]]
