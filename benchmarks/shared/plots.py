"""The plots in docs/images/, drawn from the files in ``benchmarks/results/``.

python benchmarks/shared/plots.py           # draws those whose results there are
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
IMAGES = ROOT / "docs" / "images"
COLOURS = {
    "mmdet dense": "#8c8c8c",
    "Hugging Face dense": "#bdbdbd",
    "ours dense": "#4c72b0",
    "ours cfg2": "#dd8452",
    "ours 60%": "#55a868",
}


def main() -> None:
    for name, draw in PLOTS.items():
        file = RESULTS / f"{name}.json"
        if file.exists():
            path = IMAGES / f"{name}.png"
            draw(json.loads(file.read_text()), path)
            print(f"drawn: {path.relative_to(ROOT)}")


def draw_backends(result: Mapping[str, Any], path: Path) -> None:
    """Bars by backend, with the floor of each as a line across it."""
    groups = result["results"]
    figure, axes = plt.subplots(figsize=(9, 3.6), layout="constrained")
    width = 0.8 / len(COLOURS)
    for index, (route, colour) in enumerate(COLOURS.items()):
        shown = [(i, g["rows"][route]) for i, g in enumerate(groups.values()) if route in g["rows"]]
        at = [i + (index - len(COLOURS) / 2 + 0.5) * width for i, _ in shown]
        axes.bar(at, [row["median_ms"] for _, row in shown], width, color=colour, label=route)
        axes.hlines(
            [row["gemm_floor_ms"] for _, row in shown],
            [x - width / 2 for x in at],
            [x + width / 2 for x in at],
            color="black",
            linewidth=1.2,
            label="floor of the products" if route == "ours 60%" else None,
        )
    axes.set_xticks(range(len(groups)), [name.replace(" ", "\n") for name in groups])
    axes.set_ylabel("ms")
    axes.legend(fontsize=8)
    save(figure, path)


def draw_scaling(result: Mapping[str, Any], path: Path) -> None:
    """Milliseconds and peak memory against tokens, and the lines fitted to the first."""
    figure, (time, memory) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for route, rows in result["results"].items():
        tokens = [row["tokens"] / 1000 for row in rows.values()]
        colour = COLOURS[route]
        time.plot(
            tokens, [r["median_ms"] for r in rows.values()], "o", color=colour, label=route, ms=4
        )
        memory.plot(
            tokens,
            [r["allocated_mib"] for r in rows.values()],
            "o-",
            color=colour,
            label=route,
            ms=4,
        )
        found = result["fits"].get(route)
        if found:
            fitted = [found["intercept_ms"] + found["ms_per_thousand_tokens"] * x for x in tokens]
            time.plot(tokens, fitted, color=colour, linewidth=1)
    for axes, label in ((time, "ms"), (memory, "MiB allocated at most")):
        axes.set(xlabel="thousand tokens (4x4 pixels each)", ylabel=label, xlim=0, ylim=0)
        axes.legend(fontsize=8)
    save(figure, path)


def draw_adaptation(result: Mapping[str, Any], path: Path) -> None:
    """Cost of an iteration, as a share of dense, against the windows that are kept."""
    scopes = result["results"]
    figure, panels = plt.subplots(
        1, len(scopes), figsize=(4.5 * len(scopes), 3.6), layout="constrained", squeeze=False
    )
    for axes, (scope, found) in zip(panels[0], scopes.items(), strict=True):
        ours = {n: row for n, row in found["rows"].items() if n.startswith(("ours", "uniform"))}
        drawn = {n: row for n, row in found["rows"].items() if n.startswith("random")}
        for what, colour, label in (("ms", "#4c72b0", "time"), ("memory", "#dd8452", "memory")):
            for rows, marker, name in ((ours, "o", "uniform"), (drawn, "x", "random")):
                axes.plot(
                    [row["kept"] for row in rows.values()],
                    [row[f"{what}_of_dense"] for row in rows.values()],
                    marker,
                    color=colour,
                    label=f"{label}, {name}",
                )
            fitted = found["fits"][what]
            axes.plot(
                [0, 1], [fitted["at_none"], fitted["at_none"] + fitted["slope"]], color=colour, lw=1
            )
        axes.set(title=scope, xlabel="share of windows kept", xlim=(0, 1.05), ylim=0)
        axes.set_ylabel("cost of an iteration (dense = 1)")
        axes.legend(fontsize=8)
    save(figure, path)


def draw_search(result: Mapping[str, Any], path: Path) -> None:
    """The best score against the scored trials: the median of the searches, and 10 to 90 %."""
    intervals = result["intervals"]
    figure, panels = plt.subplots(
        1, len(intervals), figsize=(4.8 * len(intervals), 3.6), layout="constrained", squeeze=False
    )
    for axes, (name, found) in zip(panels[0], intervals.items(), strict=True):
        for index, (sampler, row) in enumerate(found["samplers"].items()):
            trials = range(1, len(row["median"]) + 1)
            axes.plot(trials, row["median"], color=f"C{index}", label=sampler, lw=1.5)
            axes.fill_between(trials, row["p10"], row["p90"], color=f"C{index}", alpha=0.08, lw=0)
        axes.axhline(found["best"], color="black", lw=0.8, ls=":", label="best there is")
        axes.set(title=f"latency {name}", xlabel="scored trials", xscale="log")
        axes.set(ylabel="best bbox AP", ylim=(found["median"], None))
    panels[0][-1].legend(fontsize=7)
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # without the version of matplotlib, so that equal figures are equal files
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


PLOTS: dict[str, Callable[[Mapping[str, Any], Path], None]] = {
    "backends": draw_backends,
    "scaling": draw_scaling,
    "adaptation": draw_adaptation,
    "search": draw_search,
}


if __name__ == "__main__":
    main()
