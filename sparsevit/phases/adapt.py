"""Phase 2: sparsity-aware adaptation (SparseViT, section 3.2)."""

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
    require_checkpoint,
)
from sparsevit.phases.training import TrainResult, run_training
from sparsevit.report.reporter import SILENT, Reporter
from sparsevit.sparsity.configuration import to_ratio

VALIDATE_AT = (0.3, 0.6)


def adapt(
    config: PathLike | None = None,
    checkpoint: PathLike | None = None,
    *,
    workspace: PathLike | None = None,
    overrides: Sequence[str] = (),
    skip_broken: bool = False,
    shared: bool = False,
    validate_at: Sequence[float] = VALIDATE_AT,
    validate_before: bool = True,
    eval_images: int | None = None,
    seed: int = 0,
    force: bool = False,
    resume: bool = False,
    launcher: str = "none",
    reporter: Reporter = SILENT,
) -> TrainResult:
    """Adapt a trained model to sparsity: new random layerwise ratios at every iteration.

    Args:
        config: path or name; the workspace's where None, else the embedded demo's. A dense Swin in
            it is made sparse.
        checkpoint: the dense weights; those that ``pretrain`` made where None.
        workspace: directory of the record; ``work_dirs`` where None.
        overrides: config values, ``key=value`` each.
        skip_broken: leave images that cannot be read out, rather than refuse the dataset.
        shared: draw the same ratios in all processes, rather than others in each.
        validate_at: uniform ratios to validate at, beside dense.
        validate_before: validate the dense weights too, so that the difference shows.
        eval_images: validate on the first N images only.
        seed: of ratios and data order.
        force: adapt again although it is done.
        resume: go on with the last run.
        launcher: who started the processes.
        reporter: is told what happens.

    Raises:
        UserError: an input is missing or wrong, or the phase is done already.
    """
    ratios = [to_ratio(r, "A ratio to validate at") for r in validate_at]
    distributed.join(launcher)
    ws = open_workspace(workspace)
    inputs = gather_inputs(ws, "adapt", config, checkpoint, overrides, reporter=reporter)
    require_checkpoint(inputs, "adapt")
    check_splits(inputs, "train", "val", skip_broken=skip_broken, reporter=reporter)
    given = record_of(
        ws,
        inputs,
        {"seed": seed, "shared": shared, "validate_at": ratios, "eval_images": eval_images},
    )
    with phase_run(ws, "adapt", given, force=force, resume=resume) as run:
        return run_training(
            "adapt",
            inputs,
            run,
            validate_before=validate_before,
            ratios=ratios,
            eval_images=eval_images,
            reporter=reporter,
            seed=seed,
            launcher=launcher,
            random_sparsity=True,
            shared_sparsity=shared,
        )
