"""COCO metrics of any config, checkpoint and sparsity."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparsevit.engine import distributed
from sparsevit.engine.evaluation import DetectorEvaluation
from sparsevit.engine.runner import build_detector
from sparsevit.phases.device import pick_device
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
from sparsevit.report.reporter import SILENT, Reporter
from sparsevit.sparsity.handle import SparsityHandle


@dataclass(frozen=True)
class EvaluateResult:
    """Metrics of a detector.

    Attributes:
        metrics: such as ``bbox_mAP`` and ``segm_mAP``, 0 to 1.
        sparsity: the configuration it was evaluated at.
        sparsity_source: where that came from.
        config_source, checkpoint_source: where config and weights came from.
        checkpoint: the weights.
        images: how many were scored.
        seconds: all of it.
    """

    metrics: dict[str, float]
    sparsity: dict[str, float]
    sparsity_source: str
    config_source: str
    checkpoint: Path
    checkpoint_source: str
    images: int
    seconds: float


def evaluate(
    config: PathLike | None = None,
    checkpoint: PathLike | None = None,
    *,
    workspace: PathLike | None = None,
    sparsity: PathLike | None = None,
    dense: bool = False,
    overrides: Sequence[str] = (),
    images: int | None = None,
    device: str | None = None,
    launcher: str = "none",
    reporter: Reporter = SILENT,
) -> EvaluateResult:
    """COCO bbox and mask AP on the validation set.

    Args:
        config: path or name; the workspace's last where None, else the embedded demo's.
        checkpoint: weights; the workspace's last where None.
        workspace: directory of the record; ``work_dirs`` where None.
        sparsity: file with a configuration; that of the config where None.
        dense: at ratio 0, whatever the config says.
        overrides: config values, ``key=value`` each.
        images: the first N only.
        device: where to run; CUDA if there is any where None.
        launcher: who started the processes, over which the images are split.
        reporter: is told what happens.

    Raises:
        UserError: an input is missing or wrong.
    """
    started = time.perf_counter()
    distributed.join(launcher)
    ws = open_workspace(workspace)
    inputs = gather_inputs(ws, "evaluate", config, checkpoint, overrides, reporter=reporter)
    weights = require_checkpoint(inputs, "evaluate")
    check_splits(inputs, "val")
    where = pick_device(device)
    chosen = choose_sparsity(inputs, sparsity, dense=dense, reporter=reporter)
    given = record_of(ws, inputs, {"sparsity": chosen.configuration.to_dict(), "images": images})
    model, _ = build_detector(inputs.cfg, weights, where)
    SparsityHandle(model).set(chosen.configuration)
    evaluation = DetectorEvaluation(inputs.cfg, images)
    with phase_run(ws, "evaluate", given, force=True) as run:
        metrics = evaluation(model, reporter)
        run.update(metrics=metrics)
    return EvaluateResult(
        metrics=metrics,
        sparsity=chosen.configuration.to_dict(),
        sparsity_source=chosen.source,
        config_source=inputs.config_source,
        checkpoint=weights,
        checkpoint_source=inputs.checkpoint_source,
        images=evaluation.num_images,
        seconds=time.perf_counter() - started,
    )
