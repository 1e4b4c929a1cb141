"""How score and latency respond to each knob: curves as pictures."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sparsevit.report.ratios import short_names
from sparsevit.report.terminal import plot_text
from sparsevit.search.sensitivity import Curve, Sensitivity
from sparsevit.tasks import headlines, in_points

LATENCY = "latency"
_DPI = 130


def draw_sensitivity(found: Sensitivity, metric: str, folder: Path) -> dict[str, Path]:
    """Draw a picture of the metric, of the headline metrics, and of latency.

    Returns:
        metric, or ``latency`` -> the PNG.
    """
    drawn = {}
    for name in dict.fromkeys((metric, *headlines())):
        if name in found.metrics:
            label = f"{in_points(name)}, on {found.images} images"
            figure = curves_figure(found.scores(name), label)
            drawn[name] = _save(figure, folder / f"sensitivity_{name}.png")
    figure = curves_figure(found.latencies(), f"milliseconds, {found.latency}")
    drawn[LATENCY] = _save(figure, folder / f"sensitivity_{LATENCY}.png")
    return drawn


def curves_figure(curves: Mapping[str, Curve], label: str) -> Figure:
    """A line a knob over its ratio, from what dense has; on the Agg canvas."""
    figure = Figure(figsize=(7.2, 4.4), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.add_subplot()
    colours = colormaps["viridis"]
    for index, (name, curve) in enumerate(zip(short_names(curves), curves.values(), strict=True)):
        ratios, values = zip(*curve, strict=True)
        # the last of a continuous map is too pale on white
        colour = colours(0.9 * index / max(1, len(curves) - 1))
        ax.plot(
            ratios,
            values,
            marker="o",
            markersize=3,
            linewidth=1.4,
            color=colour,
            label=plot_text(name),
        )
    for curve in list(curves.values())[:1]:
        ax.axhline(curve[0][1], color="#b0b8c0", linewidth=0.8, zorder=0)
    ax.set_xlabel("ratio of the knob (later knobs of its stage are raised to it)")
    ax.set_ylabel(plot_text(label))
    ax.spines[["top", "right"]].set_visible(False)
    if curves:
        ax.legend(frameon=False, fontsize=8)
    return figure


def _save(figure: Figure, path: Path) -> Path:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    path.write_bytes(buffer.getvalue())
    return path
