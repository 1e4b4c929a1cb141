"""Where a phase that has many latencies to know takes them from: a calibration, or a clock."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparsevit.atomic import write_atomic
from sparsevit.errors import UserError
from sparsevit.latency.calibration import HELD_OUT, MAX_ERROR, SECONDS
from sparsevit.latency.predictor import Calibration, LatencyPredictor
from sparsevit.latency.workload import Workload
from sparsevit.phases.calibrate import error_text, kept_calibration, measured_calibration
from sparsevit.plain_files import read_record
from sparsevit.report.reporter import SILENT, Reporter
from sparsevit.workspace import Workspace

AUTO, PREDICTED, MEASURED = "auto", "predicted", "measured"
HOW = (AUTO, PREDICTED, MEASURED)
DECISION = "latency.json"
# Beyond this much the machine is not as it was: said, though predictions are scaled to it.
_NOTABLE_DRIFT = 0.05


def predictor_for(
    ws: Workspace,
    workload: Workload,
    *,
    max_error: float = MAX_ERROR,
    seconds: float = SECONDS,
    held_out: int = HELD_OUT,
    seed: int = 0,
    reporter: Reporter = SILENT,
) -> LatencyPredictor | None:
    """What predicts latencies: from the calibration that is there, else from one made now.

    Call it in one process, within the run that needs it or outside of any. With
    :meth:`LatencyPredictor.scaled` it follows the machine's present speed; :func:`scaled_to_now`
    does that and says so.

    Args:
        ws: keeps calibrations.
        workload: what is timed.
        max_error, seconds, held_out, seed: see :func:`calibrate`.
        reporter: is told what happens.

    Returns:
        None where the check on held-out configurations failed, so that latencies must be timed.

    Raises:
        UserError: the workspace cannot be written, or the backend cannot be had.
    """
    found = kept_calibration(ws, workload, max_error)
    if found is not None:
        reporter.note(f"latency: calibrated {found.made}, {error_text(found)}")
    made = found or measured_calibration(
        ws,
        workload,
        held_out=held_out,
        max_error=max_error,
        seconds=seconds,
        seed=seed,
        reporter=reporter,
    )
    if made.accepted:
        return LatencyPredictor(made)
    reporter.note(
        f"latency: predictions are off by more than {max_error:.1%} on average; each "
        "configuration is timed instead (`sparsevit calibrate --force` tries again)"
    )
    return None


def latency_predictor(
    ws: Workspace,
    workload: Workload,
    how: str,
    *,
    timing_seconds: float,
    max_error: float = MAX_ERROR,
    before: Callable[[], None] = lambda: None,
    reporter: Reporter = SILENT,
) -> LatencyPredictor | None:
    """What predicts latencies for who has many to know, or None where they are to be timed.

    Args:
        ws, workload, max_error, reporter: see :func:`predictor_for`.
        how: ``predicted``: calibrate where that was not done. ``measured``: time each. ``auto``: as
            ``predicted`` where there is a calibration, or making it is less work than timing.
        timing_seconds: what timing all of them would take.
        before: called before a calibration is made, to refuse what it would be made in vain for.

    Raises:
        UserError: there is no such way, or as :func:`predictor_for`.
    """
    if how not in HOW:
        raise UserError(f"{how!r} is not a way to get latencies.", f"Use one of {', '.join(HOW)}.")
    if how == MEASURED:
        return None
    there = kept_calibration(ws, workload) is not None
    if how == AUTO and timing_seconds <= SECONDS and not there:
        return None
    if not there:
        before()
    return predictor_for(ws, workload, max_error=max_error, reporter=reporter)


def scaled_to_now(
    predictor: LatencyPredictor, dense_ms: float, reporter: Reporter = SILENT
) -> LatencyPredictor:
    """The predictor at the speed that the machine has now.

    Args:
        predictor: as calibrated.
        dense_ms: what the dense model takes now.
        reporter: is told of a speed that has notably changed.
    """
    scaled = predictor.scaled(dense_ms)
    if abs(scaled.drift) > _NOTABLE_DRIFT:
        word = "slower" if scaled.drift > 0 else "faster"
        reporter.note(
            f"latency: the machine is {abs(scaled.drift):.0%} {word} than when it was calibrated "
            f"(dense {dense_ms:.4g} ms, then {predictor.dense_ms:.4g}); predictions are scaled"
        )
    return scaled


def settled_predictor(
    folder: Path,
    decide: Callable[[], LatencyPredictor | None],
    *,
    threads: int | None = None,
) -> LatencyPredictor | None:
    """The predictor that a run goes by from its first attempt to its last.

    A search that was killed must judge candidates as it did before, whatever was calibrated since,
    and also where it found that latencies are to be timed.

    Args:
        folder: of the run; keeps the decision.
        decide: gives the predictor, at the machine's present speed, or None for timing; called
            where there is no decision yet.
        threads: CPU threads that latencies are timed with; None where they do not matter.

    Raises:
        UserError: the decision that is there cannot be read, or was made with another number of
            threads.
    """
    path = folder / DECISION
    if path.exists():
        return _read_decision(path, threads)
    predictor = decide()
    document: dict[str, Any] = {"latency": MEASURED, "threads": threads}
    if predictor is not None:
        document |= {
            "latency": PREDICTED,
            "dense_ms": predictor.dense_ms,
            "calibration": predictor.calibration.to_dict(),
        }
    write_atomic(path, json.dumps(document, indent=1) + "\n")
    return predictor


def _read_decision(path: Path, threads: int | None) -> LatencyPredictor | None:
    try:
        document = read_record(path)
        # an earlier version did not say
        before = document.get("threads")
        if None not in (threads, before) and threads != before:
            raise UserError(
                f"This run has timed with {before} CPU threads, and would now with {threads}.",
                f"Continue it with --threads {before}, or start a new run with --force.",
            )
        if document["latency"] == MEASURED:
            return None
        calibration = Calibration.from_dict(document["calibration"])
        return LatencyPredictor(calibration, float(document["dense_ms"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}, which says how this run judges latencies, cannot be read: {error}.",
            "Start a new run with --force.",
        ) from error
