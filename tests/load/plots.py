"""Draws plots: python plots.py FOLDER SCENARIO ..., or python plots.py --bench FOLDER.

It runs with the packages of load tests. For these it reads what `load.py` wrote, a line of JSON for
each sample; for the benchmark, the points of its plots from standard input.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import quantiles
from typing import Any, Final, TypeAlias

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.ticker import ScalarFormatter

_SLICES: Final = 60
_ROWS: Final = (("/s", "turns per second"), ("ms", "CPU of a turn, ms"))
_GROWING: Final = ("workers", "stored turns")
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


Curves: TypeAlias = Mapping[str, Sequence[Mapping[str, Any]]]
"""The points of each plot of the benchmark."""


def draw_added(points: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Draw what turns take beyond the floor, and the targets."""
    cases = list(dict.fromkeys(point["case"] for point in points))
    shapes = list(dict.fromkeys(point["shape"] for point in points))
    figure, axes = plt.subplots(figsize=(10, 4.5), layout="constrained")
    width = 0.8 / len(shapes)
    for number, shape in enumerate(shapes):
        of_shape = [point for point in points if point["shape"] == shape]
        at = [cases.index(point["case"]) + (number + 0.5) * width - 0.4 for point in of_shape]
        medians = [point["p50"] for point in of_shape]
        errors = [
            [point["p50"] - point["low"] for point in of_shape],
            [point["high"] - point["p50"] for point in of_shape],
        ]
        axes.bar(at, medians, width * 0.9, yerr=errors, capsize=4, label=f"{shape}, p50")
        axes.plot(at, [point["p95"] for point in of_shape], "v", color="0.4", markersize=5)
        for place, point in zip(at, of_shape, strict=True):
            edges = (place - width * 0.45, place + width * 0.45)
            axes.hlines(point["target"], *edges, colors="black", linestyles="dashed")
    axes.plot([], [], "v", color="0.4", label="p95")
    axes.hlines([], 0, 0, colors="black", linestyles="dashed", label="target of the median")
    axes.set(title="Added to a plain proxy", ylabel="ms")
    axes.set_xticks(range(len(cases)), cases)
    axes.grid(visible=True, axis="y", alpha=0.3)
    axes.legend(fontsize="small")
    _save(figure, file)


def draw_delays(points: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Draw how long tokens are under way, as distributions."""
    figure, axes = plt.subplots(figsize=(10, 4.5), layout="constrained")
    for point in points:
        delays = point["ms"]
        shares = [number / max(1, len(delays) - 1) for number in range(len(delays))]
        axes.plot(delays, shares, label=f"{point['side']} ({point['shape']})", linewidth=1.4)
    axes.axhline(0.99, color="0.6", linestyle="dotted", label="99 %")
    axes.set(title=f"Delay of a token, {points[0]['what']}", xlabel="ms", ylabel="share of tokens")
    axes.set_xscale("symlog", linthresh=10)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="small")
    _save(figure, file)


def draw_growth(curves: Curves, file: Path) -> None:
    """Draw rate and CPU of turns as workers and stored turns grow."""
    kinds = [kind for kind in _GROWING if curves.get(kind)]
    figure, panels = plt.subplots(
        2, len(kinds), figsize=(10, 6), layout="constrained", squeeze=False
    )
    for column, kind in enumerate(kinds):
        for row, (unit, label) in enumerate(_ROWS):
            points = sorted(
                (point for point in curves[kind] if point["unit"] == unit),
                key=lambda point: point["number"],
            )
            axes, values = panels[row][column], [point["value"] for point in points]
            errors = [
                [point["value"] - point["low"] for point in points],
                [point["high"] - point["value"] for point in points],
            ]
            axes.errorbar(
                [point["number"] for point in points], values, yerr=errors, marker="o", capsize=4
            )
            axes.set(xlabel=kind, ylabel=label, xscale="log")
            if kind == "workers":
                axes.set_xticks([point["number"] for point in points])
                axes.get_xaxis().set_major_formatter(ScalarFormatter())
                axes.minorticks_off()
            axes.set_ylim(bottom=0)
            axes.grid(visible=True, alpha=0.3)
    _save(figure, file)


def _save(figure: Any, file: Path) -> None:  # noqa: ANN401 -- matplotlib is in a folder of its own
    figure.savefig(file, dpi=100)
    plt.close(figure)


def draw_bench(folder: Path, curves: Curves) -> None:
    """Draw what the benchmark measured; what it did not is left as it was."""
    if points := curves.get("added"):
        draw_added(points, folder / "added.png")
    if points := curves.get("delays"):
        draw_delays(points, folder / "delays.png")
    if any(curves.get(kind) for kind in _GROWING):
        draw_growth(curves, folder / "growth.png")


if __name__ == "__main__":
    mpl.use("Agg")
    if sys.argv[1] == "--bench":
        draw_bench(Path(sys.argv[2]), json.load(sys.stdin))
    else:
        for scenario in sys.argv[2:]:
            draw_times(Path(sys.argv[1]), scenario)
            draw_watched(Path(sys.argv[1]), scenario)
