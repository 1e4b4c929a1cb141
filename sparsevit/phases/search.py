"""Phase 3: the best configuration within a latency interval (SparseViT, section 3.3)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sparsevit.engine import distributed
from sparsevit.engine.config import dump_config
from sparsevit.errors import UserError
from sparsevit.latency.calibration import MAX_ERROR
from sparsevit.latency.predictor import LatencyPredictor
from sparsevit.latency.subject import PAPER_BATCH, PAPER_IMG_SIZE, require_execution
from sparsevit.phases.budgets import Budget, all_budgets
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
)
from sparsevit.phases.searching.processes import agree_on_latency, check_workers, divided, helpers
from sparsevit.phases.searching.results import beside, of_front, summary, write_results
from sparsevit.phases.searching.worker import FRONT, SearchBench, SearchPlan
from sparsevit.phases.sensitivity import sensitivity_for
from sparsevit.report.reporter import SILENT, Reporter
from sparsevit.search import (
    EvolutionSampler,
    Progress,
    SearchResult,
    log_name,
)
from sparsevit.search.front import Reference
from sparsevit.search.loop import require_reach
from sparsevit.search.samplers import GuidedSampler, NSGA2Sampler
from sparsevit.search.study import shown_url
from sparsevit.workspace import Workspace
from sparsevit.workspace.evaluations import Evaluations
from sparsevit.workspace.workspace import BEST_NAME

METRIC = "bbox_mAP"
TRIALS = 10_000
STUDY_NAME = "study.db"
PARETO_SAMPLER = NSGA2Sampler.name

OnEvent = Callable[[Progress], None]


@dataclass(frozen=True)
class SearchPhaseResult:
    """What a search found and where it is.

    Attributes:
        run: its name in the workspace.
        best: file with the best configuration of the first interval, which ``finetune`` takes by
            itself; None where only the front was searched.
        bests: file with the best of each interval, by interval: ``37:42``.
        log: every new best of the first search in the form of the paper's script.
        plot: picture of latency against score.
        storage: of the Optuna studies; ``optuna-dashboard`` opens it.
        metric: what the score is, in points (AP x 100).
        scope, backend, batch_size, img_size, precision, device: how latency was measured.
        images: how many images a score is from.
        latency: whether candidates' was ``predicted`` or ``measured``; the winner's is measured.
        prediction_error: the mean on held-out configurations, as a share; None where latency is
            measured.
        search: what the search of the first interval came to; that of the whole front where no
            interval was given.
        others: the searches of the other intervals, in the order in which they were given.
        references: what the searches are compared with.
        resumed: whether it went on with an earlier attempt.
    """

    run: str
    best: Path | None
    bests: dict[str, Path]
    log: Path
    plot: Path
    storage: str
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
    others: tuple[SearchResult, ...]
    references: tuple[Reference, ...]
    resumed: bool

    @property
    def searches(self) -> tuple[SearchResult, ...]:
        """The searches of all intervals."""
        return (self.search, *self.others)


def search(
    config: PathLike | None = None,
    checkpoint: PathLike | None = None,
    *,
    max_ms: float | None = None,
    min_ms: float | None = None,
    budgets: Sequence[Budget] = (),
    pareto: bool = False,
    workspace: PathLike | None = None,
    overrides: Sequence[str] = (),
    trials: int = TRIALS,
    max_candidates: int = TRIALS,
    sampler: str | None = None,
    population: int = 100,
    parents: int = 25,
    mutation_prob: float = 0.1,
    metric: str = METRIC,
    eval_images: int | None = None,
    halving: bool = False,
    scope: str = "backbone",
    backend: str = "eager",
    img_size: tuple[int, int] | None = None,
    batch_size: int = PAPER_BATCH,
    precision: str = "fp32",
    latency: str = AUTO,
    latency_seconds: float = 5.0,
    max_error: float = MAX_ERROR,
    workers: int = 1,
    storage: PathLike | None = None,
    study: str | None = None,
    device: str | None = None,
    seed: int = 0,
    force: bool = False,
    resume: bool = False,
    launcher: str = "none",
    reporter: Reporter = SILENT,
    on_event: OnEvent | None = None,
) -> SearchPhaseResult:
    """Search the layerwise ratios with the best score whose latency lies within an interval.

    Args:
        config: path or name; the workspace's where None, else the embedded demo's.
        checkpoint: the adapted weights; those that ``adapt`` made where None.
        max_ms, min_ms: the interval in milliseconds, both included.
        budgets: more intervals, or all of them: (lowest, highest) each.
        pareto: search the whole latency-accuracy front in one study; intervals, if any, take their
            best from it.
        workspace: directory of the record; ``work_dirs`` where None.
        overrides: config values, ``key=value`` each.
        trials: stop when that many different configurations were scored, for each interval.
        max_candidates: stop when that many were drawn (10000 in the paper's script).
        sampler: one of :data:`sparsevit.search.samplers.SAMPLERS`; ``evolution`` where None, with
            ``pareto`` NSGA-II.
        population, parents, mutation_prob: of the evolution.
        metric: what to maximise, such as ``bbox_mAP`` or ``segm_mAP``.
        eval_images: score on the first N images only.
        halving: stop weak candidates after an eighth, a quarter or a half of the images.
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
        workers: processes that share the work on this machine; a CUDA device each, or a part of
            the CPU's threads.
        storage: file or URL of the studies, to share them with other machines; the run's own file
            where None.
        study: name of the study in the storage; after the interval where None.
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
    wanted = all_budgets(min_ms, max_ms, budgets, pareto)
    sampler = sampler or (PARETO_SAMPLER if pareto else EvolutionSampler.name)
    distributed.join(launcher)
    if launcher != "none" and (workers > 1 or halving):
        raise UserError(
            "The images of a score are split over processes: workers and halving are not for that.",
            "Give --workers or --halving without --devices and --launcher.",
        )
    where = pick_device(device)
    check_workers(workers, where)
    require_execution(scope, backend, precision, where)
    ws = open_workspace(workspace)
    inputs = gather_inputs(ws, "search", config, checkpoint, overrides, reporter=reporter)
    weights = require_checkpoint(inputs, "search")
    check_splits(inputs, "val")
    size = img_size or validation_size(inputs.cfg) or PAPER_IMG_SIZE
    options: dict[str, Any] = {}
    if sampler == EvolutionSampler.name:
        options = {"population": population, "parents": parents, "mutation_prob": mutation_prob}
    searched = (FRONT,) if pareto else wanted
    given = record_of(ws, inputs)
    weights_digest = given["checkpoint"]["sha256"]
    timing = {
        "scope": scope,
        "backend": backend,
        "img_size": list(size),
        "batch_size": batch_size,
        "precision": precision,
        "device": str(where),
    }
    given |= {
        "interval_ms": list(wanted[0]) if len(wanted) == 1 and not pareto else None,
        "budgets": [list(budget) for budget in wanted],
        "pareto": pareto,
        "trials": trials,
        "max_candidates": max_candidates,
        **timing,
        "latency": latency,
        "max_error": max_error,
        "sampler": sampler,
        "seed": seed,
        **options,
        "metric": metric,
        "eval_images": eval_images,
        "halving": halving,
        "storage": None if storage is None else shown_url(os.fspath(storage)),
        "study": study,
    }
    extendable = ("trials", "max_candidates")
    plan = SearchPlan(
        config="",
        checkpoint=os.fspath(weights),
        checkpoint_sha256=weights_digest,
        workspace=os.fspath(ws.path),
        directory="",
        scope=scope,
        backend=backend,
        img_size=size,
        batch_size=batch_size,
        precision=precision,
        latency_seconds=latency_seconds,
        device=str(where),
        metric=metric,
        eval_images=eval_images,
        sampler=sampler,
        options=options,
        seed=seed,
        trials=trials,
        max_candidates=max_candidates,
        halving=halving,
        pareto=pareto,
        storage="",
        study=study,
        several=len(searched) > 1,
        lag=workers - 1,
    )
    bench = SearchBench(plan, inputs.cfg, reporter)
    plan = replace(plan, sensitivity=_sensitivity(ws, bench, reporter))
    extendable = ("trials", "max_candidates")
    with phase_run(ws, "search", given, force=force, resume=resume, extendable=extendable) as run:
        if not distributed.is_first():
            bench.scorer.help_the_first()
            raise SystemExit(0)
        config_file = run.directory / "searched.py"
        config_file.write_text(dump_config(inputs.cfg), encoding="utf-8")
        plans = divided(
            replace(
                plan,
                config=os.fspath(config_file),
                directory=os.fspath(run.directory),
                storage=os.fspath(storage or run.directory / STUDY_NAME),
            ),
            workers,
        )
        bench.plan = plans[0]
        try:
            Evaluations(ws.path).remove_leftovers()
            bench.predictor = agree_on_latency(
                bench.plan,
                searched[0],
                lambda: _decide(ws, bench, latency, max_error, searched, reporter),
            )
            with helpers(plans[1:], searched, reporter):
                bench.share_machine()
                scored = _search_all(ws, bench, searched, on_event)
            references = beside(bench, searched, scored)
            found = of_front(bench, scored[0], wanted) if pareto and wanted else scored
        finally:
            distributed.share(None)
        made = write_results(ws, run.directory, bench, wanted, found, references, scored)
        run.update(
            metrics=summary(found[0], metric),
            outputs={**made.outputs, "config": save_config(inputs, run)},
        )
    predictor = bench.predictor
    return SearchPhaseResult(
        run=run.name,
        best=ws.path / BEST_NAME if wanted else None,
        bests=made.bests,
        log=made.log,
        plot=made.plot,
        storage=shown_url(bench.plan.storage),
        metric=metric,
        scope=scope,
        backend=backend,
        batch_size=batch_size,
        img_size=size,
        precision=precision,
        device=str(where),
        images=bench.scorer.images,
        latency=MEASURED if predictor is None else PREDICTED,
        prediction_error=None if predictor is None else predictor.calibration.mean_error,
        search=found[0],
        others=found[1:],
        references=tuple(references),
        resumed=run.resumed,
    )


def _sensitivity(
    ws: Workspace, bench: SearchBench, reporter: Reporter
) -> tuple[tuple[dict[str, float], float], ...]:
    """What `sparsevit sensitivity` found of these weights, for a sampler that starts from it."""
    plan = bench.plan
    if plan.sampler != GuidedSampler.name:
        return ()
    found = sensitivity_for(ws, plan.checkpoint_sha256, plan.metric, bench.space)
    if found is None:
        reporter.note("sensitivity: not known; `sparsevit sensitivity` first shortens the search")
        return ()
    return tuple(
        (each.configuration.to_dict(), each.scores[plan.metric])
        for each in (found.dense, *found.responses)
    )


def _decide(
    ws: Workspace,
    bench: SearchBench,
    how: str,
    max_error: float,
    budgets: Sequence[Budget],
    reporter: Reporter,
) -> LatencyPredictor | None:
    """What predicts latencies, at the machine's present speed; None where they are measured."""
    plan = bench.plan
    found = latency_predictor(
        ws,
        Timed(
            bench.subject,
            bench.handle,
            plan.backend,
            plan.batch_size,
            plan.img_size,
            plan.checkpoint_sha256,
        ),
        how,
        timing_seconds=plan.trials * len(budgets) * plan.latency_seconds,
        max_error=max_error,
        before=lambda: _check_reach(bench, budgets),
        reporter=reporter,
    )
    if found is None:
        return None
    return scaled_to_now(found, bench.time_ms(bench.space.dense()), reporter)


def _check_reach(bench: SearchBench, budgets: Sequence[Budget]) -> None:
    """Refuse an interval that cannot be met before minutes are spent on a calibration."""
    dense_ms, fastest_ms = bench.time_ms(bench.space.dense()), bench.time_ms(bench.space.max())
    for budget in budgets:
        require_reach(budget, dense_ms, fastest_ms, slowest_ms=dense_ms)


def _search_all(
    ws: Workspace, bench: SearchBench, budgets: Sequence[Budget], on_event: OnEvent | None
) -> tuple[SearchResult, ...]:
    return tuple(
        bench.search(
            budget,
            log=None if budget == FRONT else ws.path / log_name(*budget),
            on_event=on_event,
        )
        for budget in budgets
    )
