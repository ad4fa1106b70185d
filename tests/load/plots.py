"""Draws the plots of a load test: python plots.py FOLDER SCENARIO ...

It runs with locust's packages and reads what `load.py` wrote, a line of JSON for each sample.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

import matplotlib as mpl
from matplotlib import pyplot as plt

_SLICES: Final = 60
_PANELS: Final = ("memory of", "connections of", "keys in", "bytes in", "unfinished")


def _samples(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def draw_times(folder: Path, name: str) -> None:
    """Draw the 95th percentile of everything that was timed, along the run."""
    samples = [each for each in _samples(folder / f"{name}.jsonl") if "error" not in each]
    if not samples:
        return
    begun = min(sample["at"] for sample in samples)
    slice_s = max(1.0, (max(sample["at"] for sample in samples) - begun) / _SLICES)
    waited: defaultdict[str, defaultdict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        waited[sample["name"]][int((sample["at"] - begun) / slice_s)].append(sample["ms"])
    figure, axes = plt.subplots(figsize=(10, 5), layout="constrained")
    for timed, slices in sorted(waited.items()):
        points = [
            (number * slice_s, quantiles(values, n=20, method="inclusive")[-1])
            for number, values in sorted(slices.items())
            if len(values) > 1
        ]
        if points:
            axes.plot(*zip(*points, strict=True), label=timed, linewidth=1.2)
    axes.set(title=f"{name}: 95th percentile", xlabel="seconds", ylabel="ms", yscale="log")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    figure.savefig(folder / f"{name}.png", dpi=120)
    plt.close(figure)


def draw_watched(folder: Path, name: str) -> None:
    """Draw what was watched, a panel for each kind."""
    file = folder / f"{name}.watched.jsonl"
    if not file.exists():
        return
    samples = _samples(file)
    figure, panels = plt.subplots(len(_PANELS), figsize=(10, 12), sharex=True, layout="constrained")
    for axes, kind in zip(panels, _PANELS, strict=True):
        for key in samples[0]:
            if key.startswith(kind):
                moments = [sample["at"] - samples[0]["at"] for sample in samples]
                axes.plot(moments, [sample[key] for sample in samples], label=key, linewidth=1.2)
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.3)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    panels[-1].set_xlabel("seconds")
    figure.savefig(folder / f"{name}-watched.png", dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    mpl.use("Agg")
    for scenario in sys.argv[2:]:
        draw_times(Path(sys.argv[1]), scenario)
        draw_watched(Path(sys.argv[1]), scenario)
