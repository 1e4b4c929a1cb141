"""The tables of ``sparsevit calibrate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table

from sparsevit.latency.predictor import Calibration
from sparsevit.report.changes import change_table
from sparsevit.report.ratios import short_ratios

if TYPE_CHECKING:
    from sparsevit.phases.calibrate import CalibrateResult


def calibration_report(result: CalibrateResult) -> Group:
    """What each knob changes, how predictions held, and whether they are used."""
    how = result.execution
    height, width = how.img_size
    made = result.calibration
    threads = f", {result.torch_threads} thread{'s' * (result.torch_threads != 1)}"
    return Group(
        change_table(
            made.tables,
            f"Change in milliseconds by knob: {how.scope}, {how.batch_size} x "
            f"{width}x{height}, {how.backend} {how.precision}",
        ),
        held_out_table(made),
        verdict(made),
        f"dense {made.dense_ms:.4g} ms; {result.device_name} ({how.device}"
        f"{threads if how.device.type == 'cpu' else ''}); "
        f"{'reused, measured' if result.reused else 'measured'} {made.made[:19]}, "
        f"{made.measured + len(made.held_out)} configurations in {made.seconds:.0f} s",
        f"calibration: {result.file}",
    )


def held_out_table(calibration: Calibration) -> Table:
    """Predicted beside measured, of configurations that no prediction was made from."""
    table = Table(title="Held-out configurations", title_justify="left")
    table.add_column("ratios")
    for name in ("predicted ms", "measured ms", "error"):
        table.add_column(name, justify="right")
    for each in calibration.held_out:
        table.add_row(
            short_ratios(each.configuration),
            f"{each.predicted_ms:.2f}",
            f"{each.measured_ms:.2f}",
            f"{(each.predicted_ms - each.measured_ms) / each.measured_ms:+.1%}",
        )
    return table


def verdict(calibration: Calibration) -> str:
    """Whether predictions are used, and if not, what may be the matter."""
    errors = (
        f"predictions are off by {calibration.mean_error:.1%} on average, "
        f"{calibration.max_error:.1%} at most"
    )
    if calibration.accepted:
        return f"Accepted: {errors} (limit {calibration.limit:.1%} on average)."
    if calibration.noise > calibration.limit / 2:
        why = (
            f"The measurements themselves vary by {calibration.noise:.1%}"
            f"{f' ({calibration.busy})' if calibration.busy else ''}: calibrate again on a "
            "quieter machine, or with more --seconds."
        )
    else:
        why = "Here latency is not a sum over knobs."
    return (
        f"Not accepted: {errors} (limit {calibration.limit:.1%} on average). {why} "
        "Searches will time every candidate."
    )
