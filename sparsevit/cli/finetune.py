"""``sparsevit finetune``."""

from __future__ import annotations

from sparsevit.cli import console, run
from sparsevit.cli.options import (
    BudgetOption,
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
    SparsityOption,
    ThreadsOption,
    WorkspaceOption,
)
from sparsevit.cli.own import inputs_of


def finetune(
    config: ConfigArgument = None,
    checkpoint: CheckpointArgument = None,
    data: DataOption = None,
    model: ModelOption = None,
    workspace: WorkspaceOption = None,
    sparsity: SparsityOption = None,
    budget: BudgetOption = None,
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
    """Finetune an adapted model at a fixed sparsity.

    The sparsity is that of --sparsity, else the config's own if it has one, else the best that
    search found.
    """
    if run.start_processes(devices, launcher):
        return
    given = (config, checkpoint, data, model, workspace)
    config, checkpoint = inputs_of("finetune", *given, skip_broken)
    from sparsevit.phases.finetune import finetune as phase
    from sparsevit.report.training import training_table

    result = phase(
        config,
        checkpoint,
        workspace=workspace,
        sparsity=sparsity,
        budget=budget,
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
