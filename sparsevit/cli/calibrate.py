"""``sparsevit calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsevit.cli import console, run
from sparsevit.cli.options import (
    MOST_SECONDS,
    Backend,
    BackendOption,
    BatchSizeOption,
    ConfigArgument,
    DataOption,
    DeviceOption,
    ImgSizeOption,
    JsonOption,
    MaxErrorOption,
    ModelOption,
    Precision,
    PrecisionOption,
    Scope,
    ScopeOption,
    SeedOption,
    SetOption,
    ThreadsOption,
    WorkspaceOption,
)
from sparsevit.cli.own import inputs_of

CALIBRATION_PANEL = "Calibration"


def calibrate(
    config: ConfigArgument = None,
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            metavar="CHECKPOINT",
            show_default=False,
            help="Weights; they matter only for a whole model. Default: the workspace's.",
        ),
    ] = None,
    scope: ScopeOption = Scope.backbone,
    backend: BackendOption = Backend.eager,
    img_size: ImgSizeOption = None,
    batch_size: BatchSizeOption = 4,
    precision: PrecisionOption = Precision.fp32,
    seconds: Annotated[
        float,
        typer.Option(
            min=0.01,
            max=MOST_SECONDS,
            metavar="S",
            help="Seconds to spend; the measurements that predictions need are always made.",
            rich_help_panel=CALIBRATION_PANEL,
        ),
    ] = 600.0,
    held_out: Annotated[
        int,
        typer.Option(
            min=1,
            max=10_000,
            metavar="N",
            help="Number of random configurations to check predictions on.",
            rich_help_panel=CALIBRATION_PANEL,
        ),
    ] = 12,
    max_error: MaxErrorOption = 3.0,
    data: DataOption = None,
    model: ModelOption = None,
    workspace: WorkspaceOption = None,
    overrides: SetOption = None,
    seed: SeedOption = 0,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Measure again even if the workspace has a calibration.",
            rich_help_panel="Run",
        ),
    ] = False,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how latency responds to each knob, so that a search need not time every candidate.

    It is needed once for each device, model, image size, batch size, backend and precision;
    searches then find it in the workspace. If it is killed, the same command continues it.
    """
    from sparsevit.cli.parse import image_size

    config, checkpoint = inputs_of("calibrate", config, checkpoint, data, model, workspace)
    from sparsevit.phases.calibrate import calibrate as phase
    from sparsevit.report.calibration import calibration_report

    result = phase(
        config,
        checkpoint,
        workspace=workspace,
        overrides=overrides or (),
        scope=scope.value,
        backend=backend.value,
        img_size=image_size(img_size),
        batch_size=batch_size,
        precision=precision.value,
        held_out=held_out,
        max_error=max_error / 100,
        seconds=seconds,
        device=device,
        seed=seed,
        force=force,
        reporter=run.reporter(),
    )
    console.emit(result, as_json, calibration_report)
