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
RATIO = "ratio of the knob (later knobs of its stage are raised to it)"
_DPI = 130
_MOST_MARKED = 30
"""Points of a curve, up to which each has a marker."""


def draw_sensitivity(found: Sensitivity, metric: str, folder: Path) -> dict[str, Path]:
    """Draw a picture of the metric, of the headline metrics, and of latency.

    Returns:
        metric, or ``latency`` -> the PNG.
    """
    return {
        name: _save(figure, folder / f"sensitivity_{name}.png")
        for name, figure in sensitivity_figures(found, metric).items()
    }


def sensitivity_figures(found: Sensitivity, metric: str) -> dict[str, Figure]:
    """A figure of the metric, of the headline metrics, and of ``latency``, by these names."""
    drawn = {
        name: curves_figure(found.scores(name), f"{in_points(name)}, on {found.images} images")
        for name in dict.fromkeys((metric, *headlines()))
        if name in found.metrics
    }
    drawn[LATENCY] = curves_figure(found.latencies(), f"milliseconds, {found.latency}")
    return drawn


def curves_figure(curves: Mapping[str, Curve], label: str, along: str = RATIO) -> Figure:
    """A line a name; on the Agg canvas.

    Args:
        curves: of knobs over their ratio, from what dense has, which is drawn as a level; or of
            anything else.
        label: what the values are.
        along: what they are drawn over.
    """
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
            marker="o" if len(curve) <= _MOST_MARKED else None,
            markersize=3,
            linewidth=1.4,
            color=colour,
            label=plot_text(name),
        )
    for curve in list(curves.values())[: along == RATIO]:
        ax.axhline(curve[0][1], color="#b0b8c0", linewidth=0.8, zorder=0)
    ax.set_xlabel(along)
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
