"""Phase 1: train the dense model."""

from __future__ import annotations

from collections.abc import Sequence

from sparsevit.engine import distributed
from sparsevit.phases.inputs import (
    PathLike,
    check_splits,
    gather_inputs,
    open_workspace,
    phase_run,
    record_of,
)
from sparsevit.phases.training import TrainResult, run_training
from sparsevit.report.reporter import SILENT, Reporter


def pretrain(
    config: PathLike | None = None,
    checkpoint: PathLike | None = None,
    *,
    workspace: PathLike | None = None,
    overrides: Sequence[str] = (),
    skip_broken: bool = False,
    seed: int = 0,
    eval_images: int | None = None,
    force: bool = False,
    resume: bool = False,
    launcher: str = "none",
    reporter: Reporter = SILENT,
) -> TrainResult:
    """Train the dense model of a config.

    Args:
        config: path or name; the embedded demo's where None.
        checkpoint: weights to start from; what the config says where None.
        workspace: directory of the record; ``work_dirs`` where None.
        overrides: config values, ``key=value`` each.
        skip_broken: leave images that cannot be read out, rather than refuse the dataset.
        seed: of weights and data order.
        eval_images: validate on the first N images only.
        force: train again although it is done.
        resume: go on with the last run.
        launcher: who started the processes.
        reporter: is told what happens.

    Raises:
        UserError: an input is missing or wrong, or the phase is done already.
    """
    distributed.join(launcher)
    ws = open_workspace(workspace)
    inputs = gather_inputs(
        ws, "pretrain", config, checkpoint, overrides, sparse=False, reporter=reporter
    )
    check_splits(inputs, "train", "val", skip_broken=skip_broken, reporter=reporter)
    given = record_of(ws, inputs, {"seed": seed, "eval_images": eval_images})
    with phase_run(ws, "pretrain", given, force=force, resume=resume) as run:
        return run_training(
            "pretrain",
            inputs,
            run,
            validate_before=False,
            eval_images=eval_images,
            reporter=reporter,
            seed=seed,
            launcher=launcher,
        )
