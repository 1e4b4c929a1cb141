"""How score and latency answer to each knob alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sparsevit.atomic import write_atomic
from sparsevit.engine.runner import build_model
from sparsevit.latency.calibration import MAX_ERROR
from sparsevit.latency.execution import FLAT, PAPER_BATCH, PAPER_IMG_SIZE, Execution
from sparsevit.latency.workload import Stopwatch, Workload
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
)
from sparsevit.phases.latency_source import (
    AUTO,
    latency_predictor,
    settled_predictor,
)
from sparsevit.phases.scoring import Scorer, unknown_metric
from sparsevit.plain_files import read_record
from sparsevit.report.reporter import SILENT, Reporter
from sparsevit.report.sensitivity_plot import draw_sensitivity
from sparsevit.search.sensitivity import (
    Response,
    Sensitivity,
    read_sensitivity,
    response_from_dict,
    response_to_dict,
)
from sparsevit.sparsity import Configuration, Space
from sparsevit.sparsity.sweep import sweep
from sparsevit.workspace import Workspace

NAME = "sensitivity.json"
_POINTS = "points.json"

LatencyMs = Callable[[Configuration], float]


@dataclass(frozen=True)
class SensitivityResult:
    """What each knob does, and where that is kept.

    Attributes:
        run: its name in the workspace.
        sensitivity: the model dense, and with each knob alone at each of its choices.
        metric: what the table and the pictures show first.
        file: all of it as JSON.
        plots: what is plotted -> picture.
        execution: what latency is of.
        resumed: whether it went on with an earlier attempt.
        busy: what timings say of other work on the machine; None where nothing speaks for it.
    """

    run: str
    sensitivity: Sensitivity
    metric: str
    file: Path
    plots: dict[str, Path]
    execution: Execution = field(metadata=FLAT)
    resumed: bool
    busy: str | None = None


def sensitivity(
    config: PathLike | None = None,
    checkpoint: PathLike | None = None,
    *,
    workspace: PathLike | None = None,
    overrides: Sequence[str] = (),
    skip_broken: bool = False,
    metric: str | None = None,
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
    force: bool = False,
    resume: bool = False,
    reporter: Reporter = SILENT,
) -> SensitivityResult:
    """Score and latency of a model dense, and with each knob alone at each of its choices.

    Within a group ratios never fall: the knobs after it are raised to it. Killed and called again,
    it goes on; no configuration is scored twice.

    Args:
        config: path or name; the workspace's where None, else the embedded demo's.
        checkpoint: the adapted weights; those that ``adapt`` made where None.
        workspace: directory of the record; ``work_dirs`` where None.
        overrides: config values, ``key=value`` each.
        skip_broken: leave images that cannot be read out, rather than refuse the dataset.
        metric: what to show; the headline of the task where None. All are kept.
        eval_images: score on the first N images only.
        scope, backend, img_size, batch_size, precision: what latency is of; see
            :func:`sparsevit.phases.search.search`.
        latency: ``predicted`` by a calibration, ``measured`` one by one, or ``auto``; see
            :func:`sparsevit.phases.latency_source.latency_predictor`.
        latency_seconds: time to spend on timing a configuration, where that is done.
        max_error: mean error up to which a calibration is believed, as a share.
        device: where to run; CUDA if there is any where None.
        force: do it anew although it is done.
        resume: go on with the last one, though it is done.
        reporter: is told what happens.

    Raises:
        UserError: an input is missing or wrong.
    """
    asked = Execution(
        *(scope, backend, precision, img_size or PAPER_IMG_SIZE, batch_size, pick_device(device))
    ).require()
    ws = open_workspace(workspace)
    inputs = gather_inputs(ws, "sensitivity", config, checkpoint, overrides, reporter=reporter)
    weights = require_checkpoint(inputs, "sensitivity")
    check_splits(inputs, "val", skip_broken=skip_broken, reporter=reporter)
    execution = replace(asked, img_size=image_size(inputs.cfg, img_size, reporter))
    how = {**execution.to_dict(), "latency": latency, "eval_images": eval_images}
    given = record_of(ws, inputs, how)
    digest = given["checkpoint"]["sha256"]
    model, _ = build_model(inputs.cfg, weights, execution.device)
    workload = Workload(model, execution, weights=digest)
    space = workload.handle.space
    scorer = Scorer(ws, inputs.cfg, model, checkpoint=digest, metric=metric, images=eval_images)
    metric = scorer.metric
    with phase_run(ws, "sensitivity", given, force=force, resume=resume) as run:
        predictor = settled_predictor(
            run.directory,
            lambda: latency_predictor(
                ws,
                workload,
                latency,
                timing_seconds=latency_seconds * len(sweep(space)),
                max_error=max_error,
                reporter=reporter,
            ),
            threads=execution.threads,
        )
        known = [
            point
            for point in _read_points(run.directory / _POINTS)
            if point.configuration == space.dense()
        ]
        stopwatch = Stopwatch(
            workload,
            latency_seconds,
            # an earlier attempt's, by which its points were timed
            dense_ms=known[0].latency_ms if known else None,
            warn=lambda text: reporter.note(text),
        )
        latency_ms: LatencyMs = stopwatch if predictor is None else predictor.predict

        def respond(knob: str | None, ratio: float, configuration: Configuration) -> Response:
            scores = scorer.points(scorer.metrics(configuration))
            if knob is None and metric not in scores:
                raise unknown_metric(metric, scores)
            return Response(knob, ratio, configuration, scores, latency_ms(configuration))

        found = _swept(run.directory / _POINTS, space, respond, reporter)
        result = Sensitivity(
            dense=found[0],
            responses=tuple(found[1:]),
            images=scorer.images,
            latency="measured" if predictor is None else "predicted",
        )
        if metric not in result.metrics:
            raise unknown_metric(metric, result.metrics)
        file = run.directory / NAME
        write_atomic(file, json.dumps(result.to_dict(), indent=1) + "\n")
        plots = draw_sensitivity(result, metric, run.directory)
        busy = stopwatch.clock.machine.busy
        run.update(
            metrics={
                "metric": metric,
                "dense_score": result.dense.scores[metric],
                "dense_ms": result.dense.latency_ms,
                "latency": result.latency,
                "configurations": len(result.responses),
                **({"machine": busy} if busy else {}),
            },
            outputs={"sensitivity": file, **{f"plot_{name}": p for name, p in plots.items()}},
        )
    return SensitivityResult(
        run=run.name,
        sensitivity=result,
        metric=metric,
        file=file,
        plots=plots,
        execution=execution,
        resumed=run.resumed,
        busy=busy,
    )


def sensitivity_for(
    ws: Workspace, checkpoint: str, metric: str, space: Space
) -> Sensitivity | None:
    """The newest finished sensitivity of these weights, for a search to begin from.

    Args:
        ws: whose runs are looked through.
        checkpoint: SHA-256 of the weights.
        metric: that the search maximises.
        space: of the model.

    Returns:
        None where there is none of these weights, with these knobs and this metric.
    """
    for run in reversed(ws.history("sensitivity")):
        weights = run.inputs.get("checkpoint")
        path = ws.locate(run, "sensitivity")
        if path is None or run.status != "finished" or not isinstance(weights, Mapping):
            continue
        if weights.get("sha256") != checkpoint:
            continue
        found = read_sensitivity(path)
        if found is not None and metric in found.metrics and found.knobs == space.names:
            return found
    return None


def _swept(
    path: Path,
    space: Space,
    respond: Callable[[str | None, float, Configuration], Response],
    reporter: Reporter,
) -> list[Response]:
    """The dense model's response, then each knob's; what an earlier attempt found is kept."""
    wanted: list[tuple[str | None, float, Configuration]] = [(None, 0.0, space.dense())]
    wanted += [(point.knob, point.ratio, point.configuration) for point in sweep(space)]
    known = {each.configuration: each for each in _read_points(path)}
    found: list[Response] = []
    with reporter.task("sensitivity", len(wanted)) as task:
        for knob, ratio, configuration in wanted:
            response = known.get(configuration)
            if response is None:
                response = respond(knob, ratio, configuration)
            # a metric is left out where nothing is detected
            dense = found[0] if found else response
            scores = {name: response.scores.get(name, 0.0) for name in dense.scores}
            found.append(Response(knob, ratio, configuration, scores, response.latency_ms))
            if configuration not in known:
                known[configuration] = found[-1]
                _write_points(path, list(known.values()))
            task.advance(detail=f"{knob or 'dense'} {ratio:g}")
    return found


def _read_points(path: Path) -> list[Response]:
    try:
        rows = read_record(path)
        return [response_from_dict(row) for row in rows]
    except (ValueError, TypeError, KeyError, AttributeError):
        return []


def _write_points(path: Path, points: Sequence[Response]) -> None:
    write_atomic(path, json.dumps([response_to_dict(each) for each in points], indent=1) + "\n")
