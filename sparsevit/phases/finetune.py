"""Phase 4: finetune at a fixed configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sparsevit.engine import distributed
from sparsevit.errors import UserError
from sparsevit.phases.budgets import named_best
from sparsevit.phases.inputs import (
    PathLike,
    check_splits,
    gather_inputs,
    open_workspace,
    phase_run,
    record_of,
    require_checkpoint,
)
from sparsevit.phases.sparsity import choose_sparsity
from sparsevit.phases.training import TrainResult, run_training
from sparsevit.report.reporter import SILENT, Reporter


def finetune(
    config: PathLike | None = None,
    checkpoint: PathLike | None = None,
    *,
    workspace: PathLike | None = None,
    sparsity: PathLike | None = None,
    budget: str | None = None,
    overrides: Sequence[str] = (),
    skip_broken: bool = False,
    eval_images: int | None = None,
    seed: int = 0,
    force: bool = False,
    resume: bool = False,
    launcher: str = "none",
    reporter: Reporter = SILENT,
) -> TrainResult:
    """Finetune an adapted model at a fixed configuration.

    Args:
        config: path or name; the workspace's where None, else the embedded demo's.
        checkpoint: the adapted weights; those that ``adapt`` made where None.
        workspace: directory of the record; ``work_dirs`` where None.
        sparsity: file with a configuration; where None, that of a given config which has one, else
            the best that ``search`` found.
        budget: take the best that search found for this interval, ``37:42``, instead.
        overrides: config values, ``key=value`` each.
        skip_broken: leave images that cannot be read out, rather than refuse the dataset.
        eval_images: validate on the first N images only.
        seed: of the data order.
        force: finetune again although it is done.
        resume: go on with the last run.
        launcher: who started the processes.
        reporter: is told what happens.

    Raises:
        UserError: an input is missing or wrong, there is no configuration, or the phase is done
            already.
    """
    distributed.join(launcher)
    ws = open_workspace(workspace)
    sparsity = named_best(ws, sparsity, budget, reporter)
    inputs = gather_inputs(ws, "finetune", config, checkpoint, overrides, reporter=reporter)
    require_checkpoint(inputs, "finetune")
    check_splits(inputs, "train", "val", skip_broken=skip_broken, reporter=reporter)
    best = ws.best_configuration()
    chosen = choose_sparsity(inputs, sparsity, best, reporter=reporter)
    if sparsity is None and best is None and not any(chosen.configuration.values()):
        raise UserError(
            "`sparsevit finetune` needs a sparsity configuration, and there is none.",
            "Run `sparsevit search` first, give a file with --sparsity, or a config that sets "
            "sparsity.",
        )
    inputs = replace(
        inputs,
        cfg=chosen.in_config(inputs.cfg),
        base=chosen.in_config(inputs.base),
    )
    given = record_of(
        ws,
        inputs,
        {
            "seed": seed,
            "sparsity": chosen.configuration.to_dict(),
            "eval_images": eval_images,
        },
    )
    with phase_run(ws, "finetune", given, force=force, resume=resume) as run:
        return run_training(
            "finetune",
            inputs,
            run,
            validate_before=True,
            sparsity=chosen.configuration,
            eval_images=eval_images,
            reporter=reporter,
            seed=seed,
            launcher=launcher,
        )
