"""How score and latency respond to each knob: tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Group

from sparsevit.report.changes import change_table
from sparsevit.search.sensitivity import Curve
from sparsevit.tasks import in_points

if TYPE_CHECKING:
    from sparsevit.phases.sensitivity import SensitivityResult


def sensitivity_report(result: SensitivityResult) -> Group:
    """What each knob costs in score, what it saves in time, and where all of it is."""
    found = result.sensitivity
    how = result.execution
    height, width = how.img_size
    metric = result.metric
    return Group(
        change_table(
            _changes(found.scores(metric)),
            f"{in_points(metric)}, change from dense ({found.dense.scores[metric]:.4g}), on "
            f"{found.images} images",
        ),
        change_table(
            _changes(found.latencies()),
            f"milliseconds, change from dense ({found.dense.latency_ms:.4g}), {found.latency}: "
            f"{how.scope}, {how.batch_size} x {width}x{height}, {how.backend} "
            f"{how.precision}, {how.device}",
        ),
        "One knob at a time; later knobs of its stage are raised to its ratio.",
        *(f"plot: {path}" for path in result.plots.values()),
        f"all metrics: {result.file}",
    )


def _changes(curves: Mapping[str, Curve]) -> dict[str, list[tuple[float, float]]]:
    """Knob -> (ratio, difference from dense) each."""
    return {
        knob: [(ratio, value - curve[0][1]) for ratio, value in curve]
        for knob, curve in curves.items()
    }
