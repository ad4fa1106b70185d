"""What outlives a run: docs/benchmarks.md, plots and the history; and the base to compare with."""

import asyncio
import filecmp
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tests.load.load import PACKAGES
from tests.load.report import Report, table
from tests.load.stacks import ROOT, Checkout

PAGE: Final = ROOT / "docs" / "benchmarks.md"
"""The page that holds the latest run, and a line for each earlier one."""

FOLDER: Final = ROOT / "docs" / "benchmarks"
"""The plots of the latest run, and the figures of all runs: a line of JSON for each."""

WORKLOAD: Final = 2
"""Counted up when the turns that are measured change: only runs of one workload are comparable."""

_LAST: Final = "last"
_REQUIREMENTS: Final = ("development.txt", "embedding-model.txt")
_MARKED: Final = "(?<=<!-- {0}:begin -->\n).*?(?=<!-- {0}:end -->)"
_PLOTS: Final = {
    "added.png": ("Time added to the floor, by case and shape", {"added"}),
    "delays.png": ("Distribution of the delay of a token", {"delays"}),
    "growth.png": ("Turns per second, by workers and stored turns", {"workers", "stored turns"}),
}
_HEADLINES: Final = {
    "first token": ("first token, 1 turn at a time, p50", "difference"),
    "first token, 16 at once": ("first token, 16 at once, p50", "difference"),
    "turn with a tool": ("whole turn with a tool call, p50", "difference"),
    "turns at 32": ("turns at 32", "value"),
    "CPU of a turn": ("CPU of a turn at 32, with memories and title", "value"),
    "CPU of a long turn": ("CPU of each of 200 open turns of 400 tokens", "ratio"),
    "token, p99": ("delay of a token, 200 open turns of 400 tokens, p99", "value"),
    "`GET /chats`": ("GET /chats, 20 clients, p95", "value"),
    "a stream": ("memory of each of 1000 open streams", "value"),
}
"""The columns of the table, and what each shows of a run."""


def entry(report: Report, *, when: str, commit: str) -> dict[str, Any]:
    """Return what the history keeps of a run."""
    return {
        "date": when,
        "commit": commit,
        "workload": WORKLOAD,
        **({"failed": report.failures} if report.failures else {}),
        "lines": [line.as_json() for line in report.lines],
    }


def history_table(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return a row for each run, the newest first; what was not measured is left empty."""
    rows = [("date", "commit", "workload", *_HEADLINES)]
    for kept in reversed(entries):
        lines: dict[str, Mapping[str, Any]] = {}
        for line in kept["lines"]:
            lines.setdefault(line["name"], line)  # the first shape: workers apart
        cells = (_cell(lines.get(name), against) for name, against in _HEADLINES.values())
        rows.append((kept["date"], kept["commit"], str(kept["workload"]), *cells))
    return table(rows) + "\n"


def _cell(line: Mapping[str, Any] | None, against: str) -> str:
    if line is None:
        return ""
    value, floor = line["value"], line.get("floor")
    if against == "value" or floor is None:
        return f"{value:.4g} {line['unit']}"
    return f"+{value - floor:.3g}" if against == "difference" else f"{value / floor:.2f}x"


def _plots(report: Report) -> str:
    """Return the links to the plots of what was measured."""
    return "".join(
        f"![{title}](benchmarks/{file})\n\n"
        for file, (title, curves) in _PLOTS.items()
        if not report.curves.keys().isdisjoint(curves)
    )


def write_into(page: Path, folder: Path, report: Report, *, when: str, commit: str) -> None:
    """Replace the latest run on the page, and add to the history.

    Errors: ValueError if the page lacks the markers.
    """
    content = page.read_text()
    latest, history = (
        re.compile(_MARKED.format(name), re.DOTALL) for name in ("latest", "history")
    )
    if not (latest.search(content) and history.search(content)):
        raise ValueError(f"{page} lacks the markers of the latest run or of the history")
    file = folder / "history.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    lines.append(json.dumps(entry(report, when=when, commit=commit), ensure_ascii=False))
    entries = [json.loads(line) for line in lines]
    content = history.sub(lambda _: history_table(entries), content)
    content = latest.sub(lambda _: _plots(report) + report.markdown(), content)
    folder.mkdir(exist_ok=True)
    file.write_text("\n".join(lines) + "\n")
    page.write_text(content)


async def write_benchmarks(report: Report) -> None:
    """Write the report into docs/benchmarks.md, add to the history and draw the plots."""
    when = f"{datetime.now(UTC):%Y-%m-%d}"
    commit = await _git("rev-parse", "--short", "HEAD")
    await asyncio.to_thread(write_into, PAGE, FOLDER, report, when=when, commit=commit)
    await draw(report, FOLDER)


async def draw(report: Report, folder: Path) -> None:
    """Plot the curves of a run, with the packages of load tests. Errors: RuntimeError."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__).with_name("plots.py")), "--bench", str(folder)),
        env={**os.environ, "PYTHONPATH": str(PACKAGES), "MPLCONFIGDIR": str(PACKAGES)},
        stdin=asyncio.subprocess.PIPE,
    )
    await process.communicate(json.dumps(report.curves).encode())
    if process.returncode:
        raise RuntimeError("the plots could not be drawn")


async def resolve_base(name: str) -> str:
    """Return the commit of a name; `last` is the last release, or else the newest run's commit.

    Errors: SystemExit for a name that git does not know.
    """
    if name == _LAST:
        tags = (await _git("tag", "--list", "v*", "--sort=-version:refname", "--merged")).split()
        name = tags[0] if tags else _last_commit()
    try:
        return await _git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    except subprocess.CalledProcessError:
        raise SystemExit(f"{name} is not a commit of this repository") from None


def _last_commit() -> str:
    lines = (FOLDER / "history.jsonl").read_text().splitlines()
    commit: str = json.loads(lines[-1])["commit"]
    return commit


@asynccontextmanager
async def checked_out(commit: str, folder: Path) -> AsyncIterator[Checkout]:
    """Check a commit out, with an environment of its own if it requires other packages."""
    await _git("worktree", "add", "--detach", "--force", str(folder), commit)
    try:
        # Postgres runs as another user where this is root, and reads its wheel's files.
        if _requires_the_same(folder):
            yield Checkout(folder)
            return
        sys.stderr.write("base: installing what it requires\n")
        process = await asyncio.create_subprocess_exec(
            *("make", "--silent", "-C", str(folder), "install"), stdout=asyncio.subprocess.DEVNULL
        )
        if await process.wait():
            raise RuntimeError(f"what {commit} requires could not be installed")
        yield Checkout(folder, str(folder / ".venv" / "bin" / "python"))
    finally:
        await _git("worktree", "remove", "--force", str(folder))


def _requires_the_same(folder: Path) -> bool:
    return all(
        filecmp.cmp(folder / "requirements" / name, ROOT / "requirements" / name, shallow=False)
        for name in _REQUIREMENTS
    )


async def _git(*arguments: str) -> str:
    """Run git here, and return what it prints. Errors: subprocess.CalledProcessError."""
    process = await asyncio.create_subprocess_exec(
        *("git", *arguments), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, "git")
    return output.decode().strip()
