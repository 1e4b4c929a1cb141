"""``sparsevit evaluate``."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from sparsevit.cli import console, run
from sparsevit.cli.options import (
    Backend,
    BackendOption,
    BudgetOption,
    ConfigArgument,
    DataOption,
    DeviceOption,
    DevicesOption,
    EvalImagesOption,
    EvaluateCheckpointArgument,
    JsonOption,
    Launcher,
    LauncherOption,
    ModelOption,
    Precision,
    PrecisionOption,
    Scope,
    ScopeOption,
    SetOption,
    SkipBrokenOption,
    SparsityOption,
    ThreadsOption,
    WorkspaceOption,
)
from sparsevit.cli.own import inputs_of


class Split(str, Enum):
    """Datasets that a config has metrics for."""

    val = "val"
    test = "test"


def evaluate(
    config: ConfigArgument = None,
    checkpoint: EvaluateCheckpointArgument = None,
    data: DataOption = None,
    model: ModelOption = None,
    workspace: WorkspaceOption = None,
    sparsity: SparsityOption = None,
    budget: BudgetOption = None,
    dense: Annotated[
        bool, typer.Option("--dense", help="Evaluate at ratio 0, whatever the config says.")
    ] = False,
    overrides: SetOption = None,
    skip_broken: SkipBrokenOption = False,
    split: Annotated[
        Split | None,
        typer.Option(
            show_default="val, or test where the config has no val",
            help="The config's dataset to evaluate on.",
        ),
    ] = None,
    eval_images: EvalImagesOption = None,
    scope: ScopeOption = Scope.backbone,
    backend: BackendOption = Backend.eager,
    precision: PrecisionOption = Precision.fp32,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    devices: DevicesOption = 1,
    launcher: LauncherOption = Launcher.none,
    as_json: JsonOption = False,
) -> None:
    """Score a config, a checkpoint and a sparsity, in any backend: AP of a detector, mIoU of a
    segmentor, top-1 and top-5 of a classifier."""
    if run.start_processes(devices, launcher):
        return
    given = (config, checkpoint, data, model, workspace)
    config, checkpoint = inputs_of("evaluate", *given, skip_broken)
    from sparsevit.phases.evaluate import evaluate as phase
    from sparsevit.report.training import evaluation_table

    result = phase(
        config,
        checkpoint,
        workspace=workspace,
        sparsity=sparsity,
        budget=budget,
        dense=dense,
        overrides=overrides or (),
        skip_broken=skip_broken,
        images=eval_images,
        split=None if split is None else split.value,
        scope=scope.value,
        backend=backend.value,
        precision=precision.value,
        device=device,
        launcher=run.launched_by(launcher),
        reporter=run.reporter(),
    )
    if run.is_first():
        console.emit(result, as_json, evaluation_table)
