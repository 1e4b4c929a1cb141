"""Phase 3: the best configuration within a latency interval (SparseViT, section 3.3)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sparsevit.atomic import write_atomic
from sparsevit.engine import distributed
from sparsevit.engine.config import dump_config
from sparsevit.errors import UserError
from sparsevit.latency.execution import FLAT, PAPER_IMG_SIZE, Execution
from sparsevit.latency.predictor import LatencyPredictor
from sparsevit.phases.device import pick_device
from sparsevit.phases.inputs import (
    PathLike,
    check_splits,
    gather_inputs,
    image_size,
    open_workspace,
    phase_run,
    record_of,
    require_checkpoint,
    save_config,
)
from sparsevit.phases.latency_source import MEASURED, PREDICTED, latency_predictor, scaled_to_now
from sparsevit.phases.searching.plan import STUDY_NAME, SearchPlan
from sparsevit.phases.searching.processes import (
    agree_on_latency,
    check_workers,
    divided,
    helpers,
)
from sparsevit.phases.searching.results import (
    best_of_front,
    compared_with,
    live_log,
    summary,
    write_results,
)
from sparsevit.phases.searching.worker import SearchWorker
from sparsevit.phases.sensitivity import sensitivity_for
from sparsevit.report.reporter import SILENT, Reporter
from sparsevit.search.front import Reference
from sparsevit.search.loop import require_reach, with_dense
from sparsevit.search.options import FRONT, SearchOptions
from sparsevit.search.results import Progress, SearchResult
from sparsevit.search.samplers import GuidedSampler
from sparsevit.search.storage import shown_url
from sparsevit.tasks import task_of
from sparsevit.workspace import Workspace
from sparsevit.workspace.evaluations import Evaluations
from sparsevit.workspace.workspace import BEST_NAME

OnEvent = Callable[[Progress], None]


@dataclass(frozen=True)
class SearchPhaseResult:
    """What a search found and where it is.

    Attributes:
        run: its name in the workspace.
        best: file with the best configuration of the first interval, which ``finetune`` takes by
            itself; None where only the front was searched.
        bests: file with the best of each interval, by how it was asked for: ``37:42``, ``1.6x:2x``.
        log: every new best of the first search in the form of the paper's script.
        plot: picture of latency against score.
        storage: of the Optuna studies; ``optuna-dashboard`` opens it.
        metric: what the score is, in points, 0 to 100.
        execution: how latency was measured.
        images: how many images a score is from.
        split: of the config, that they are of.
        latency: whether candidates' was ``predicted`` or ``measured``; the winner's is measured.
        prediction_error: the mean on held-out configurations, as a share; None where latency is
            measured.
        search: what the search of the first interval came to; that of the whole front where no
            interval was given.
        others: the searches of the other intervals, in the order in which they were given.
        references: what the searches are compared with.
        resumed: whether it went on with an earlier attempt.
        busy: what timings say of other work on the machine; None where nothing speaks for it.
    """

    run: str
    best: Path | None
    bests: dict[str, Path]
    log: Path
    plot: Path
    storage: str
    metric: str
    execution: Execution = field(metadata=FLAT)
    images: int
    split: str
    latency: str
    prediction_error: float | None
    search: SearchResult
    others: tuple[SearchResult, ...]
    references: tuple[Reference, ...]
    resumed: bool
    busy: str | None = None

    @property
    def searches(self) -> tuple[SearchResult, ...]:
        """The searches of all intervals."""
        return (self.search, *self.others)


def search(
    config: PathLike | None = None,
    checkpoint: PathLike | None = None,
    *,
    workspace: PathLike | None = None,
    overrides: Sequence[str] = (),
    skip_broken: bool = False,
    options: SearchOptions | None = None,
    force: bool = False,
    resume: bool = False,
    launcher: str = "none",
    reporter: Reporter = SILENT,
    on_event: OnEvent | None = None,
    **named: Any,
) -> SearchPhaseResult:
    """Search the layerwise ratios with the best score whose latency lies within an interval.

    ``search(max_ms=42, min_ms=37, trials=200)``, or with all options in one object:
    ``search(options=SearchOptions(max_ms=42, min_ms=37, trials=200))``.

    Args:
        config: path or name; the workspace's where None, else the embedded demo's.
        checkpoint: the adapted weights; those that ``adapt`` made where None.
        workspace: directory of the record; ``work_dirs`` where None.
        overrides: config values, ``key=value`` each.
        skip_broken: leave images that cannot be read out, rather than refuse the dataset.
        options: what is searched, how, and how long.
        force: search anew although it is done.
        resume: go on with the last search, e.g. with more trials.
        launcher: who started the processes, over which the images of a score are split.
        reporter: is told what was taken.
        on_event: is told the progress.
        named: fields of :class:`sparsevit.search.options.SearchOptions`, in place of those that
            ``options`` has.

    Raises:
        UserError: an input or an option is missing or wrong, the interval cannot be met on this
            device (said before anything is searched), or nothing was found within it.
        TypeError: there is no option of a name.
    """
    options = SearchOptions(**named) if options is None else replace(options, **named)
    distributed.join(launcher)
    if launcher != "none" and (options.workers > 1 or options.halving):
        raise UserError(
            "--workers and --halving do not work when the images of a score are split over "
            "processes.",
            "Use --workers or --halving without --devices and --launcher.",
        )
    where = pick_device(options.device)
    check_workers(options.workers, where)
    asked = Execution(
        options.scope,
        options.backend,
        options.precision,
        options.img_size or PAPER_IMG_SIZE,
        options.batch_size,
        where,
    ).require()
    ws = open_workspace(workspace)
    inputs = gather_inputs(ws, "search", config, checkpoint, overrides, reporter=reporter)
    weights = require_checkpoint(inputs, "search")
    check_splits(inputs, "val", skip_broken=skip_broken, reporter=reporter)
    options = replace(options, metric=options.metric or task_of(inputs.cfg).metric)
    size = image_size(inputs.cfg, options.img_size, reporter)
    given = record_of(ws, inputs)
    plan = SearchPlan(
        options=options,
        execution=replace(asked, img_size=size),
        checkpoint=os.fspath(weights),
        checkpoint_sha256=given["checkpoint"]["sha256"],
        workspace=os.fspath(ws.path),
    )
    given |= {**options.to_dict(), **plan.execution.to_dict()}
    worker = SearchWorker(plan, inputs.cfg, reporter)
    plan = replace(plan, sensitivity=_sensitivity(ws, worker, reporter))
    extendable = ("trials", "max_candidates")
    with phase_run(ws, "search", given, force=force, resume=resume, extendable=extendable) as run:
        if not distributed.is_first():
            worker.scorer.help_the_first()
            raise SystemExit(0)
        config_file = run.directory / "searched.py"
        write_atomic(config_file, dump_config(inputs.cfg))
        storage = os.fspath(options.storage or run.directory / STUDY_NAME)
        plan = plan.begun(config_file, run.directory, storage)
        options = with_dense(plan.options, lambda: worker.time_ms(worker.space.dense()))
        if options.speedups:
            intervals = {options.name_of(each): list(each) for each in options.intervals}
            run.update(metrics={"intervals_ms": intervals})
        plans = divided(replace(plan, options=options))
        worker.plan = plans[0]
        try:
            Evaluations(ws.path).remove_leftovers()
            worker.predictor = agree_on_latency(worker.plan, lambda: _decide(ws, worker, reporter))
            with helpers(plans[1:], reporter):
                worker.share_machine()
                scored = _search_all(ws, worker, on_event)
            references = compared_with(worker, scored)
            front = options.pareto and options.intervals
            found = best_of_front(worker, scored[0]) if front else scored
        finally:
            distributed.share(None)
        made = write_results(ws, worker, found, references, scored)
        busy = worker.busy
        run.update(
            metrics={
                **summary(found[0], plan.metric, worker.scorer.split),
                **({"machine": busy} if busy else {}),
            },
            outputs={**made.outputs, "config": save_config(inputs, run)},
        )
    predictor = worker.predictor
    return SearchPhaseResult(
        run=run.name,
        best=ws.path / BEST_NAME if options.intervals else None,
        bests=made.bests,
        log=made.log,
        plot=made.plot,
        storage=shown_url(worker.plan.storage),
        metric=plan.metric,
        execution=plan.execution,
        images=worker.scorer.images,
        split=worker.scorer.split,
        latency=MEASURED if predictor is None else PREDICTED,
        prediction_error=None if predictor is None else predictor.calibration.mean_error,
        search=found[0],
        others=found[1:],
        references=tuple(references),
        resumed=run.resumed,
        busy=busy,
    )


def _sensitivity(
    ws: Workspace, worker: SearchWorker, reporter: Reporter
) -> tuple[tuple[dict[str, float], float], ...]:
    """What `sparsevit sensitivity` found of these weights, for a sampler that starts from it."""
    options = worker.plan.options
    if options.sampler_name != GuidedSampler.name:
        return ()
    weights = worker.plan.checkpoint_sha256
    found = sensitivity_for(ws, weights, worker.plan.metric, worker.space)
    if found is None:
        reporter.note(
            "sensitivity: none found; run `sparsevit sensitivity` first to shorten the search"
        )
        return ()
    return tuple(
        (each.configuration.to_dict(), each.scores[worker.plan.metric])
        for each in (found.dense, *found.responses)
    )


def _decide(ws: Workspace, worker: SearchWorker, reporter: Reporter) -> LatencyPredictor | None:
    """What predicts latencies, at the machine's present speed; None where they are measured."""
    options = worker.plan.options
    found = latency_predictor(
        ws,
        worker.workload,
        options.latency,
        timing_seconds=options.trials * len(options.searched) * options.latency_seconds,
        max_error=options.max_error,
        before=lambda: _check_reach(worker),
        reporter=reporter,
    )
    if found is None:
        return None
    return scaled_to_now(found, worker.time_ms(worker.space.dense()), reporter)


def _check_reach(worker: SearchWorker) -> None:
    """Refuse an interval that cannot be met before minutes are spent on a calibration."""
    space = worker.space
    dense_ms, fastest_ms = worker.time_ms(space.dense()), worker.time_ms(space.max())
    for interval in worker.plan.options.searched:
        require_reach(interval, dense_ms, fastest_ms, slowest_ms=dense_ms)


def _search_all(
    ws: Workspace, worker: SearchWorker, on_event: OnEvent | None
) -> tuple[SearchResult, ...]:
    return tuple(
        worker.search(
            interval,
            log=None if interval == FRONT else live_log(ws, Path(worker.plan.directory), interval),
            on_event=on_event,
        )
        for interval in worker.plan.options.searched
    )
