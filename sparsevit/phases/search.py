"""Phase 3: the best configuration within a latency interval (SparseViT, section 3.3)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from sparsevit.engine import distributed
from sparsevit.engine.evaluation import DetectorEvaluation
from sparsevit.engine.runner import build_detector
from sparsevit.errors import UserError
from sparsevit.latency.calibration import MAX_ERROR
from sparsevit.latency.predictor import LatencyPredictor
from sparsevit.latency.subject import (
    PAPER_BATCH,
    PAPER_IMG_SIZE,
    Subject,
    Timing,
    require_execution,
)
from sparsevit.phases.calibrate import Timed
from sparsevit.phases.device import pick_device
from sparsevit.phases.inputs import (
    PathLike,
    check_splits,
    gather_inputs,
    open_workspace,
    phase_run,
    record_of,
    require_checkpoint,
    save_config,
    validation_size,
)
from sparsevit.phases.latencies import (
    AUTO,
    MEASURED,
    PREDICTED,
    latency_predictor,
    scaled_to_now,
    settled_predictor,
)
from sparsevit.report.reporter import SILENT, Reporter
from sparsevit.search import (
    EvolutionSampler,
    Progress,
    SearchResult,
    log_name,
    make_sampler,
    write_best,
    write_log,
)
from sparsevit.search import (
    search as run_search,
)
from sparsevit.sparsity import Configuration, Space
from sparsevit.sparsity.handle import SparsityHandle
from sparsevit.workspace.workspace import BEST_NAME

METRIC = "bbox_mAP"
TRIALS = 10_000
STUDY_NAME = "study.db"


@dataclass(frozen=True)
class SearchPhaseResult:
    """What a search found and where it is.

    Attributes:
        run: its name in the workspace.
        best: file with the best configuration, which ``finetune`` takes by itself.
        log: every new best in the form of the paper's script.
        storage: the Optuna study; ``optuna-dashboard sqlite:///PATH`` opens it.
        metric: what the score is, in points (AP x 100).
        scope, backend, batch_size, img_size, precision, device: how latency was measured.
        images: how many images a score is from.
        latency: whether candidates' was ``predicted`` or ``measured``; the winner's is measured.
        prediction_error: the mean on held-out configurations, as a share; None where measured.
        search: the search itself.
        resumed: whether it went on with an earlier attempt.
    """

    run: str
    best: Path
    log: Path
    storage: Path
    metric: str
    scope: str
    backend: str
    batch_size: int
    img_size: tuple[int, int]
    precision: str
    device: str
    images: int
    latency: str
    prediction_error: float | None
    search: SearchResult
    resumed: bool


def search(
    config: PathLike | None = None,
    checkpoint: PathLike | None = None,
    *,
    max_ms: float,
    min_ms: float,
    workspace: PathLike | None = None,
    overrides: Sequence[str] = (),
    trials: int = TRIALS,
    max_candidates: int = TRIALS,
    sampler: str = "evolution",
    population: int = 100,
    parents: int = 25,
    mutation_prob: float = 0.1,
    metric: str = METRIC,
    eval_images: int | None = None,
    scope: str = "backbone",
    backend: str = "eager",
    img_size: tuple[int, int] | None = None,
    batch_size: int = PAPER_BATCH,
    precision: str = "fp32",
    latency: str = AUTO,
    latency_seconds: float = 5.0,
    max_error: float = MAX_ERROR,
    device: str | None = None,
    seed: int = 0,
    force: bool = False,
    resume: bool = False,
    launcher: str = "none",
    reporter: Reporter = SILENT,
    on_event: Callable[[Progress], None] | None = None,
) -> SearchPhaseResult:
    """Search the layerwise ratios with the best score whose latency lies within an interval.

    Args:
        config: path or name; the workspace's where None, else the embedded demo's.
        checkpoint: the adapted weights; those that ``adapt`` made where None.
        max_ms, min_ms: the interval in milliseconds, both included.
        workspace: directory of the record; ``work_dirs`` where None.
        overrides: config values, ``key=value`` each.
        trials: stop when that many different configurations were scored.
        max_candidates: stop when that many were drawn (10000 in the paper's script).
        sampler: ``evolution`` or ``random``.
        population, parents, mutation_prob: of the evolution.
        metric: what to maximise, such as ``bbox_mAP`` or ``segm_mAP``.
        eval_images: score on the first N images only.
        scope: time the ``backbone``, as the paper does, or the ``detector``.
        backend: what executes it while it is timed; a configuration is prepared anew in all but
            ``eager`` and ``compile``. Scores are of eager PyTorch in fp32, whatever is timed.
        img_size: (height, width) to time at; that of the config's validation where it is one
            fixed size, else 672x672, where None.
        batch_size: images a timed call.
        precision: to time in: ``fp32``, ``fp16`` or ``bf16``.
        latency: of candidates: ``predicted`` by a calibration, ``measured`` one by one, or
            ``auto``; see :func:`sparsevit.phases.latencies.latency_predictor`. The winner's is
            measured.
        latency_seconds: time to spend on timing a configuration.
        max_error: mean error of a calibration up to which it is used, as a share.
        device: where to run; CUDA if there is any where None.
        seed: of the draws.
        force: search anew although it is done.
        resume: go on with the last search, e.g. with more trials.
        launcher: who started the processes, over which the images of a score are split.
        reporter: is told what was taken.
        on_event: is told the progress.

    Raises:
        UserError: an input is missing or wrong, the interval cannot be met on this device (said
            before anything is searched), or nothing was found within it.
    """
    _check_interval(min_ms, max_ms)
    distributed.join(launcher)
    where = pick_device(device)
    require_execution(scope, backend, precision, where)
    ws = open_workspace(workspace)
    inputs = gather_inputs(ws, "search", config, checkpoint, overrides, reporter=reporter)
    weights = require_checkpoint(inputs, "search")
    check_splits(inputs, "val")
    size = img_size or validation_size(inputs.cfg) or PAPER_IMG_SIZE
    timing = {
        "scope": scope,
        "backend": backend,
        "img_size": list(size),
        "batch_size": batch_size,
        "precision": precision,
        "device": str(where),
    }
    drawing: dict[str, Any] = {"sampler": sampler, "seed": seed}
    if sampler == EvolutionSampler.name:
        drawing |= {
            "population": population,
            "parents": parents,
            "mutation_prob": mutation_prob,
        }
    judging = {"latency": latency, "max_error": max_error}
    scoring = {"metric": metric, "eval_images": eval_images}
    given = record_of(
        ws,
        inputs,
        {
            "interval_ms": [min_ms, max_ms],
            "trials": trials,
            "max_candidates": max_candidates,
            **timing,
            **judging,
            **drawing,
            **scoring,
        },
    )
    extendable = ("trials", "max_candidates")
    model, _ = build_detector(inputs.cfg, weights, where)
    handle = SparsityHandle(model)
    subject = Subject(
        model,
        scope=scope,
        batch_size=batch_size,
        img_size=size,
        device=where,
        precision=precision,
    )
    options = {k: v for k, v in drawing.items() if k not in ("sampler", "seed")}
    # refuses options that do not fit, before any work is put into it
    make_sampler(sampler, handle.space, seed, **options)
    evaluation = DetectorEvaluation(inputs.cfg, eval_images)
    if evaluation.known_metrics and metric not in evaluation.known_metrics:
        raise _unknown_metric(metric, evaluation.known_metrics)
    with phase_run(ws, "search", given, force=force, resume=resume, extendable=extendable) as run:

        def score(configuration: Configuration) -> float:
            distributed.share(configuration)
            return _score(model, handle, evaluation, configuration, metric)

        def tell(seconds: float) -> None:
            reporter.note(f"{backend}: ready for a first configuration after {seconds:.1f} s")

        time_ms = Timing(subject, handle, backend, latency_seconds, tell)
        if not distributed.is_first():
            _score_for_the_first(model, handle, evaluation, metric)
            raise SystemExit(0)
        log = ws.path / log_name(min_ms, max_ms)
        storage = run.directory / STUDY_NAME

        def decide() -> LatencyPredictor | None:
            found = latency_predictor(
                ws,
                Timed(subject, handle, backend, batch_size, size, given["checkpoint"]["sha256"]),
                latency,
                timing_seconds=trials * latency_seconds,
                max_error=max_error,
                before=lambda: _check_reach(handle.space, time_ms, min_ms, max_ms),
                reporter=reporter,
            )
            if found is None:
                return None
            return scaled_to_now(found, time_ms(handle.space.dense()), reporter)

        try:
            predictor = settled_predictor(run.directory, decide)
            predict = None if predictor is None else predictor.predict
            aim: dict[str, Any] = {"interval": (min_ms, max_ms), "predict": predict}
            result = run_search(
                handle.space,
                time_ms,
                score,
                min_ms=min_ms,
                max_ms=max_ms,
                trials=trials,
                max_candidates=max_candidates,
                predict=predict,
                sampler=make_sampler(sampler, handle.space, seed, **aim, **options),
                storage=storage,
                identity={**timing, **scoring, "checkpoint": given["checkpoint"]["sha256"]},
                log_path=log,
                on_event=on_event,
            )
        finally:
            distributed.share(None)
        how = {**timing, "checkpoint": os.fspath(weights), "images": evaluation.num_images}
        best = write_best(run.directory / BEST_NAME, result, handle.space, metric, how)
        write_best(ws.path / BEST_NAME, result, handle.space, metric, how)
        write_log(run.directory / log.name, result.trials)
        run.update(
            metrics=_summary(result, metric),
            outputs={
                "best": best,
                "study": storage,
                "log": log,
                "config": save_config(inputs, run),
            },
        )
    return SearchPhaseResult(
        run=run.name,
        best=ws.path / BEST_NAME,
        log=log,
        storage=storage,
        metric=metric,
        scope=scope,
        backend=backend,
        batch_size=batch_size,
        img_size=size,
        precision=precision,
        device=str(where),
        images=evaluation.num_images,
        latency=MEASURED if predictor is None else PREDICTED,
        prediction_error=None if predictor is None else predictor.calibration.mean_error,
        search=result,
        resumed=run.resumed,
    )


def _check_interval(min_ms: float, max_ms: float) -> None:
    if not 0 <= min_ms <= max_ms:
        raise UserError(
            f"The latency interval from {min_ms:g} to {max_ms:g} ms is empty.",
            "Give --min below --max, in milliseconds: `sparsevit search --max 42 --min 37`.",
        )


def _check_reach(
    space: Space, time_ms: Callable[[Configuration], float], min_ms: float, max_ms: float
) -> None:
    """Refuse an interval that cannot be met before minutes are spent on a calibration."""
    dense_ms, fastest_ms = time_ms(space.dense()), time_ms(space.max())
    low, high = sorted((dense_ms, fastest_ms))
    if max_ms < low or min_ms > high:
        raise UserError(
            f"No configuration can be expected within {min_ms:g} to {max_ms:g} ms here: the "
            f"sparsest takes {fastest_ms:.4g} ms, and the dense model {dense_ms:.4g} ms.",
            f"Choose an interval within {low:.4g} to {high:.4g} ms (--min, --max).",
        )


def _score(
    model: nn.Module,
    handle: SparsityHandle,
    evaluation: DetectorEvaluation,
    configuration: Configuration,
    metric: str,
) -> float:
    handle.set(configuration)
    metrics = evaluation(model)
    if not distributed.is_first():
        return 0.0
    if metric not in metrics:
        raise _unknown_metric(metric, metrics)
    return 100 * metrics[metric]


def _unknown_metric(metric: str, known: Iterable[str]) -> UserError:
    return UserError(
        f"The evaluation gives no metric {metric!r}.", f"Take one of: {', '.join(known)}."
    )


def _score_for_the_first(
    model: nn.Module, handle: SparsityHandle, evaluation: DetectorEvaluation, metric: str
) -> None:
    """Score this process's images of every configuration that the first process asks for."""
    while (configuration := distributed.share(None)) is not None:
        _score(model, handle, evaluation, configuration, metric)


def _summary(result: SearchResult, metric: str) -> dict[str, Any]:
    best = result.best
    return {
        "metric": metric,
        "score": best.score if best else None,
        "latency_ms": best.latency_ms if best else None,
        "sparsity": best.configuration.to_dict() if best and best.configuration else None,
        "dense_ms": result.dense_ms,
        "fastest_ms": result.fastest_ms,
        "candidates": result.candidates,
        "scored": result.feasible,
    }
