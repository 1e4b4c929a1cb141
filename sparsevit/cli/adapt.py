"""``sparsevit adapt``."""

from __future__ import annotations

from typing import Annotated

import typer

from sparsevit.cli import console, run
from sparsevit.cli.options import (
    CheckpointArgument,
    ConfigArgument,
    DataOption,
    DevicesOption,
    EvalImagesOption,
    ForceOption,
    JsonOption,
    Launcher,
    LauncherOption,
    ModelOption,
    ResumeOption,
    SeedOption,
    SetOption,
    SkipBrokenOption,
    ThreadsOption,
    WorkspaceOption,
)
from sparsevit.cli.own import inputs_of


def adapt(
    config: ConfigArgument = None,
    checkpoint: CheckpointArgument = None,
    data: DataOption = None,
    model: ModelOption = None,
    workspace: WorkspaceOption = None,
    overrides: SetOption = None,
    skip_broken: SkipBrokenOption = False,
    shared: Annotated[
        bool,
        typer.Option(
            "--shared/--per-process",
            help="Draw the same ratios in all processes, or different ones in each.",
        ),
    ] = False,
    validate_at: Annotated[
        str,
        typer.Option(
            metavar="R,R,...", help="Uniform ratios to validate at, in addition to dense."
        ),
    ] = "0.3,0.6",
    validate_before: Annotated[
        bool,
        typer.Option(
            "--validate-before/--no-validate-before",
            help="Validate the dense weights too, to show what adapting gains.",
        ),
    ] = True,
    eval_images: EvalImagesOption = None,
    seed: SeedOption = 0,
    force: ForceOption = False,
    resume: ResumeOption = False,
    threads: ThreadsOption = None,
    devices: DevicesOption = 1,
    launcher: LauncherOption = Launcher.none,
    as_json: JsonOption = False,
) -> None:
    """Adapt a trained model to sparsity, with new random layerwise ratios at every iteration."""
    from sparsevit.cli.parse import ratios

    at = ratios(validate_at, "--validate-at")
    if run.start_processes(devices, launcher):
        return
    given = (config, checkpoint, data, model, workspace)
    config, checkpoint = inputs_of("adapt", *given, skip_broken)
    from sparsevit.phases.adapt import adapt as phase
    from sparsevit.report.training import training_table

    result = phase(
        config,
        checkpoint,
        workspace=workspace,
        overrides=overrides or (),
        skip_broken=skip_broken,
        shared=shared,
        validate_at=at,
        validate_before=validate_before,
        eval_images=eval_images,
        seed=seed,
        force=force,
        resume=resume,
        launcher=run.launched_by(launcher),
        reporter=run.reporter(),
    )
    if run.is_first():
        console.emit(result, as_json, training_table)
