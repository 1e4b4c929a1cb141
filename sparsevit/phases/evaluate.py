"""Metrics of any config, checkpoint and sparsity."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparsevit.engine import distributed
from sparsevit.engine.evaluation import Evaluation, split_of
from sparsevit.engine.runner import build_model
from sparsevit.latency.backends.base import autocast
from sparsevit.latency.backends.stand_in import backbone_in, whole_in
from sparsevit.latency.execution import Execution
from sparsevit.phases.budgets import named_best
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
from sparsevit.tasks import Task, task_of


@dataclass(frozen=True)
class EvaluateResult:
    """Metrics of a model.

    Attributes:
        task: that it is for, such as ``detection``.
        metrics: as the task's library gives them.
        classes: the headlines by class, of metrics that can: metric -> class -> value; NaN where
            there is nothing of a class.
        split: of the config, ``val`` or ``test``.
        sparsity: the configuration it was evaluated at.
        sparsity_source: where that came from.
        config_source, checkpoint_source: where config and weights came from.
        checkpoint: the weights.
        scope, backend, precision: what executed the backbone, or the whole model, and in what.
        device: where.
        images: how many were scored.
        seconds: all of it.
    """

    task: str
    metrics: dict[str, float]
    classes: dict[str, dict[str, float]]
    split: str
    sparsity: dict[str, float]
    sparsity_source: str
    config_source: str
    checkpoint: Path
    checkpoint_source: str
    scope: str
    backend: str
    precision: str
    device: str
    images: int
    seconds: float


def evaluate(
    config: PathLike | None = None,
    checkpoint: PathLike | None = None,
    *,
    workspace: PathLike | None = None,
    sparsity: PathLike | None = None,
    budget: str | None = None,
    dense: bool = False,
    overrides: Sequence[str] = (),
    skip_broken: bool = False,
    images: int | None = None,
    split: str | None = None,
    scope: str = "backbone",
    backend: str = "eager",
    precision: str = "fp32",
    device: str | None = None,
    launcher: str = "none",
    reporter: Reporter = SILENT,
) -> EvaluateResult:
    """The metrics of a task on the validation set, or on the test set.

    Args:
        config: path or name; the workspace's last where None, else the embedded demo's.
        checkpoint: weights; the workspace's last where None.
        workspace: directory of the record; ``work_dirs`` where None.
        sparsity: file with a configuration; that of the config where None.
        budget: take the best that search found for this interval, ``37:42``, instead.
        dense: at ratio 0, whatever the config says.
        overrides: config values, ``key=value`` each.
        skip_broken: leave images that cannot be read out, rather than refuse the dataset.
        images: the first N only.
        split: ``val`` or ``test`` of the config; None for the validation set, or the test set where
            there is none.
        scope: what ``backend`` executes in ``precision``: the ``backbone``, the rest being eager
            fp32, or the whole model: ``detector``, ``segmentor`` or ``classifier``.
        backend: one of :data:`sparsevit.latency.backends.BACKENDS`.
        precision: ``fp32``, ``fp16`` or ``bf16``.
        device: where to run; CUDA if there is any where None.
        launcher: who started the processes, over which the images are split.
        reporter: is told what happens.

    Raises:
        UserError: an input is missing or wrong, or the backend cannot be had.
    """
    started = time.perf_counter()
    distributed.join(launcher)
    # sizes are those of the images that come
    how = Execution(scope, backend, precision, device=pick_device(device)).require()
    ws = open_workspace(workspace)
    sparsity = named_best(ws, sparsity, budget)
    inputs = gather_inputs(ws, "evaluate", config, checkpoint, overrides, reporter=reporter)
    task = task_of(inputs.cfg)
    task.require_scope(scope)
    weights = require_checkpoint(inputs, "evaluate")
    split = split_of(inputs.cfg, split)
    check_splits(inputs, split, skip_broken=skip_broken, reporter=reporter)
    chosen = choose_sparsity(inputs, sparsity, dense=dense, reporter=reporter)
    given = record_of(
        ws,
        inputs,
        {
            "sparsity": chosen.configuration.to_dict(),
            "scope": scope,
            "backend": backend,
            "precision": precision,
            "images": images,
            "split": split,
        },
    )
    model, _ = build_model(inputs.cfg, weights, how.device)
    SparsityHandle(model, required=False).set(chosen.configuration)
    evaluation = Evaluation(inputs.cfg, images, split=split, by_class=True)
    with phase_run(ws, "evaluate", given, force=True) as run:
        with executed(task, model, how, reporter):
            metrics = evaluation(model, reporter)
        classes = evaluation.classes()
        run.update(metrics={**metrics, "classes": classes} if classes else metrics)
    return EvaluateResult(
        task=task.name,
        metrics=metrics,
        classes=classes,
        split=split,
        sparsity=chosen.configuration.to_dict(),
        sparsity_source=chosen.source,
        config_source=inputs.config_source,
        checkpoint=weights,
        checkpoint_source=inputs.checkpoint_source,
        scope=scope,
        backend=backend,
        precision=precision,
        device=str(how.device),
        images=evaluation.num_images,
        seconds=time.perf_counter() - started,
    )


def executed(
    task: Task,
    model: nn.Module,
    how: Execution,
    reporter: Reporter,
    file: Callable[[Any], Any] | None = None,
) -> AbstractContextManager[object]:
    """The context in which ``val_step`` of a model, or its backbone, is executed as it was asked.

    Args:
        task: that the model is for.
        model: on the device of ``how``.
        how: what executes it.
        reporter: is told what takes long.
        file: gives what executes it on images, in place of the backend.
    """
    if file is None and how.whole and how.backend == "eager":
        return autocast(how.precision, how.device)
    said = False

    def tell(shape: torch.Size) -> None:
        nonlocal said
        if not said and how.backend != "eager":
            *images, _, height, width = shape
            size = f"{math.prod(images)} x {width}x{height}"
            reporter.note(
                f"preparing the {how.scope} in {how.backend} for {size}, "
                "and later for each other image size"
            )
        said = True

    by = (how.backend, how.precision, how.device)
    if how.whole:
        return whole_in(task, model, *by, on_prepare=tell, make=file)
    return backbone_in(model, *by, on_prepare=tell, make=file, name=task.backbone)
