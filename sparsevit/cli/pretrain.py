"""``sparsevit pretrain``."""

from __future__ import annotations

from sparsevit.cli import console, run
from sparsevit.cli.options import (
    DataOption,
    DevicesOption,
    EvalImagesOption,
    ForceOption,
    JsonOption,
    Launcher,
    LauncherOption,
    ModelOption,
    PretrainCheckpointArgument,
    PretrainConfigArgument,
    ResumeOption,
    SeedOption,
    SetOption,
    SkipBrokenOption,
    ThreadsOption,
    WorkspaceOption,
)
from sparsevit.cli.own import inputs_of


def pretrain(
    config: PretrainConfigArgument = None,
    checkpoint: PretrainCheckpointArgument = None,
    data: DataOption = None,
    model: ModelOption = None,
    workspace: WorkspaceOption = None,
    overrides: SetOption = None,
    skip_broken: SkipBrokenOption = False,
    eval_images: EvalImagesOption = None,
    seed: SeedOption = 0,
    force: ForceOption = False,
    resume: ResumeOption = False,
    threads: ThreadsOption = None,
    devices: DevicesOption = 1,
    launcher: LauncherOption = Launcher.none,
    as_json: JsonOption = False,
) -> None:
    """Train the dense model of a config.

    For COCO: `sparsevit pretrain sparsevit::swin/mask_rcnn_swin-t_3x.py --devices 8`.
    """
    if run.start_processes(devices, launcher):
        return
    given = (config, checkpoint, data, model, workspace)
    config, checkpoint = inputs_of("pretrain", *given, skip_broken)
    from sparsevit.phases.pretrain import pretrain as phase
    from sparsevit.report.training import training_table

    result = phase(
        config,
        checkpoint,
        workspace=workspace,
        overrides=overrides or (),
        skip_broken=skip_broken,
        eval_images=eval_images,
        seed=seed,
        force=force,
        resume=resume,
        launcher=run.launched_by(launcher),
        reporter=run.reporter(),
    )
    if run.is_first():
        console.emit(result, as_json, training_table)
