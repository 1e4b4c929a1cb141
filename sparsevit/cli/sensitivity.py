"""``sparsevit sensitivity``."""

from __future__ import annotations

from typing import Annotated

import typer

from sparsevit.cli import console, run
from sparsevit.cli.options import (
    MEASUREMENT_PANEL,
    MOST_SECONDS,
    Backend,
    BackendOption,
    BatchSizeOption,
    CheckpointArgument,
    ConfigArgument,
    DataOption,
    DeviceOption,
    EvalImagesOption,
    ForceOption,
    HowLatency,
    ImgSizeOption,
    JsonOption,
    LatencyOption,
    MaxErrorOption,
    ModelOption,
    Precision,
    PrecisionOption,
    ResumeOption,
    Scope,
    ScopeOption,
    SetOption,
    SkipBrokenOption,
    ThreadsOption,
    WorkspaceOption,
)
from sparsevit.cli.own import inputs_of


def sensitivity(
    config: ConfigArgument = None,
    checkpoint: CheckpointArgument = None,
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default="the first headline metric of the task",
            help="What to show: any metric that `sparsevit evaluate --json` gives. All are kept.",
        ),
    ] = None,
    eval_images: EvalImagesOption = None,
    scope: ScopeOption = Scope.backbone,
    backend: BackendOption = Backend.eager,
    img_size: ImgSizeOption = None,
    batch_size: BatchSizeOption = 4,
    precision: PrecisionOption = Precision.fp32,
    latency: LatencyOption = HowLatency.auto,
    latency_seconds: Annotated[
        float,
        typer.Option(
            min=0.01,
            max=MOST_SECONDS,
            metavar="S",
            help="Seconds to spend on each configuration that is timed.",
            rich_help_panel=MEASUREMENT_PANEL,
        ),
    ] = 5.0,
    max_error: MaxErrorOption = 3.0,
    data: DataOption = None,
    model: ModelOption = None,
    workspace: WorkspaceOption = None,
    overrides: SetOption = None,
    skip_broken: SkipBrokenOption = False,
    force: ForceOption = False,
    resume: ResumeOption = False,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """How score and latency respond to each knob alone, with all others dense.

    A search with the guided sampler starts from it. If it is killed, the same command continues it.
    """
    from sparsevit.cli.parse import image_size

    given = (config, checkpoint, data, model, workspace)
    config, checkpoint = inputs_of("sensitivity", *given, skip_broken)
    from sparsevit.phases.sensitivity import sensitivity as phase
    from sparsevit.report.sensitivity import sensitivity_report

    result = phase(
        config,
        checkpoint,
        workspace=workspace,
        overrides=overrides or (),
        skip_broken=skip_broken,
        metric=metric,
        eval_images=eval_images,
        scope=scope.value,
        backend=backend.value,
        img_size=image_size(img_size),
        batch_size=batch_size,
        precision=precision.value,
        latency=latency.value,
        latency_seconds=latency_seconds,
        max_error=max_error / 100,
        device=device,
        force=force,
        resume=resume,
        reporter=run.reporter(),
    )
    console.emit(result, as_json, sensitivity_report)
