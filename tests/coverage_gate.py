"""The coverage gates: 80 % of the statements and 70 % of the branches of the whole project.

Reads what `coverage json` says of the run before. `coverage report --fail-under` knows only one
number, in which the two are mixed.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Final

GATES: Final = {
    "statements": ("covered_lines", "num_statements", 80.0),
    "branches": ("covered_branches", "num_branches", 70.0),
}


def missed_gates(totals: Mapping[str, float]) -> list[str]:
    """Print each number beside its gate and return the names of those that are below."""
    missed = []
    for name, (covered, all_of_them, gate) in GATES.items():
        percent = 100 * totals[covered] / totals[all_of_them] if totals[all_of_them] else 0.0
        print(f"coverage of {name}: {percent:.1f} % (gate: {gate:.0f} %)")
        if percent < gate:
            missed.append(name)
    return missed


def _totals() -> Mapping[str, float]:
    report = subprocess.run(
        [sys.executable, "-m", "coverage", "json", "--quiet", "-o", "-"],
        check=True,
        capture_output=True,
        text=True,
    )
    totals: Mapping[str, float] = json.loads(report.stdout)["totals"]
    return totals


if __name__ == "__main__":
    sys.exit(1 if missed_gates(_totals()) else 0)
