"""CPU time of whole process trees, including processes that have ended."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """CPU that each named tree of processes has used. Units: milliseconds."""

    by_name: Mapping[str, float]

    @classmethod
    def now(cls, pids: Mapping[str, int]) -> "CpuTimes":
        """Read the counters of each tree; `pids` are the roots."""
        return cls({name: _tree_ms(pid) for name, pid in pids.items()})

    def since(self, before: "CpuTimes") -> "CpuTimes":
        """Return what was used from `before` to this moment."""
        return CpuTimes({name: ms - before.by_name[name] for name, ms in self.by_name.items()})

    def plus(self, other: "CpuTimes") -> "CpuTimes":
        """Return the sum of two intervals of the same processes."""
        return CpuTimes({name: ms + other.by_name[name] for name, ms in self.by_name.items()})

    def per(self, count: int) -> "CpuTimes":
        """Return the share of each of `count` turns."""
        return CpuTimes({name: ms / count for name, ms in self.by_name.items()})

    def total(self, *, without: tuple[str, ...] = ()) -> float:
        """Return the sum over all trees but those named."""
        return sum(ms for name, ms in self.by_name.items() if name not in without)


def _tree_ms(pid: int) -> float:
    root = psutil.Process(pid)
    return sum(map(_process_ms, [root, *root.children(recursive=True)]))


def _process_ms(process: psutil.Process) -> float:
    # The counters of a child go to its parent when it ends, so none is lost between two readings.
    with suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return 1000 * (times.user + times.system + times.children_user + times.children_system)
    return 0.0
