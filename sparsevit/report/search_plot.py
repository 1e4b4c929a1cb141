"""A search as a picture: latency against score, with the front and what it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparsevit.report.terminal import plot_text
from sparsevit.search.front import Reference, front_of
from sparsevit.search.results import SearchResult
from sparsevit.search.trial import Trial
from sparsevit.tasks import in_points

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_front(
    results: Sequence[SearchResult],
    references: Sequence[Reference],
    metric: str,
    path: Path,
    scored_in: Sequence[SearchResult],
) -> Path:
    """Writes the picture of :func:`front_figure` to ``path``: ``.png``, ``.pdf`` or ``.svg``."""
    front_figure(results, references, metric, scored_in).savefig(path, dpi=150)
    return path


def front_figure(
    results: Sequence[SearchResult],
    references: Sequence[Reference],
    metric: str,
    scored_in: Sequence[SearchResult],
) -> Figure:
    """Every scored trial, the front, each interval's best, dense and uniform.

    Args:
        results: of the searches, one an interval.
        references: what they are compared with.
        metric: the name of the score.
        scored_in: the searches whose trials are drawn.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    trials = {t.configuration: t for r in scored_in for t in r.trials if t.state == "scored"}
    scored = list(trials.values())
    axes.scatter(*_points(scored), s=12, c="0.7", label="scored")
    front = front_of(scored)
    axes.plot(
        *_points(front),
        "-o",
        ms=3,
        color="tab:blue",
        label="front",
    )
    bests = [r.best for r in results if r.best is not None]
    axes.scatter(
        *_points(bests),
        s=110,
        marker="*",
        color="tab:green",
        label="best",
        zorder=3,
    )
    markers = {"dense": ("s", "black"), "uniform": ("^", "tab:orange")}
    said: set[str] = set()
    for reference in references:
        kind = reference.name.split()[0]
        marker, color = markers[kind]
        axes.scatter(
            [reference.latency_ms],
            [reference.score],
            s=45,
            marker=marker,
            color=color,
            label=None if kind in said else kind,
            zorder=3,
        )
        said.add(kind)
    shown = axes.get_xlim()
    for result in results:
        if result.max_ms < float("inf"):
            axes.axvspan(result.min_ms, result.max_ms, color="tab:green", alpha=0.08, lw=0)
    # an interval may be wider than all that lies in it
    axes.set_xlim(shown)
    axes.set_xlabel("latency, ms")
    axes.set_ylabel(plot_text(in_points(metric)))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _points(trials: Sequence[Trial]) -> tuple[list[float], list[float]]:
    """(milliseconds, scores) of scored trials."""
    found = [(t.latency_ms, t.score) for t in trials if t.latency_ms is not None]
    return [ms for ms, _ in found], [score for _, score in found if score is not None]
