"""The coverage gates: 80 % of statements and 70 % of branches, over the whole project.

Also 80 % of the statements of each service, so that none hides behind the others. Reads the data of
the previous run with `coverage json`: `coverage report --fail-under` has a single number that mixes
statements and branches.
"""

import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Final

GATES: Final = {
    "statements": ("covered_lines", "num_statements", 80.0),
    "branches": ("covered_branches", "num_branches", 70.0),
}
_SERVICES: Final = "services"


def missed_gates(totals: Mapping[str, float]) -> list[str]:
    """Print each number beside its gate, and return the names of missed gates."""
    missed = []
    for name, (covered, all_of_them, gate) in GATES.items():
        percent = _percent(totals, covered, all_of_them)
        print(f"coverage of {name}: {percent:.1f} % (gate: {gate:.0f} %)")
        if percent < gate:
            missed.append(name)
    return missed


def missed_services(files: Mapping[str, Any]) -> list[str]:
    """Print the least covered service, and return those below the gate.

    Shapes: `files` is the part of `coverage json` of that name, by path.
    """
    covered, all_of_them, gate = GATES["statements"]
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for path, report in files.items():
        parts = PurePath(path).parts
        if parts[0] == _SERVICES and len(parts) > 2:  # modules beside the packages are not services
            summary = report["summary"]
            counts[parts[1]].update({name: summary[name] for name in (covered, all_of_them)})
    percents = {name: _percent(count, covered, all_of_them) for name, count in counts.items()}
    least = min(percents, key=lambda name: percents[name])
    print(f"coverage of services: at least {percents[least]:.1f} % ({least})")
    return [name for name, percent in percents.items() if percent < gate]


def _percent(counts: Mapping[str, float], covered: str, all_of_them: str) -> float:
    return 100 * counts[covered] / counts[all_of_them] if counts[all_of_them] else 0.0


def _report() -> Mapping[str, Any]:
    report = subprocess.run(
        [sys.executable, "-m", "coverage", "json", "--quiet", "-o", "-"],
        check=True,
        capture_output=True,
        text=True,
    )
    parsed: Mapping[str, Any] = json.loads(report.stdout)
    return parsed


def _main() -> int:
    report = _report()
    missed = [*missed_gates(report["totals"]), *missed_services(report["files"])]
    if missed:
        print(f"missed: {', '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(_main())
