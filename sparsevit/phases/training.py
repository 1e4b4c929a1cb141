"""What the training phases share: pretrain, adapt and finetune differ in what they start from, in
how sparsity is set while they train, and in how they are validated."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from sparsevit.engine.distributed import default_device
from sparsevit.engine.evaluation import Evaluation, split_of
from sparsevit.engine.image_size import pipeline_sizes
from sparsevit.engine.runner import build_model, train
from sparsevit.latency.cost import all_parameters, gmacs, parameters
from sparsevit.phases.inputs import Inputs, PhaseRun, save_config
from sparsevit.report.reporter import SILENT, Reporter
from sparsevit.sparsity import Configuration
from sparsevit.sparsity.configuration import format_ratio
from sparsevit.sparsity.handle import SparsityHandle
from sparsevit.tasks import task_of

Metrics = dict[str, float]

DENSE = "dense"
BEFORE_TRAINING = "before"
AFTER_TRAINING = "after"


@dataclass(frozen=True)
class TrainResult:
    """What a training phase made.

    Attributes:
        phase: its name.
        run: its name in the workspace, such as ``adapt run-001``.
        directory: its folder: checkpoints, logs, TensorBoard events.
        config: config that the next phase starts from.
        checkpoint: the trained weights.
        config_source, checkpoint_source: where config and first weights came from.
        iterations: of the whole run, also before it was resumed.
        loss: mean loss of the last 50 iterations, None where none ran in this session.
        seconds: of this session.
        resumed: whether it went on with an earlier attempt.
        sparsity: the configuration trained at; None while it changed all the time.
        before: name of a sparsity -> metrics of the weights that training started from.
        after: the same of the weights it made.
        split: of the config, that metrics are of.
    """

    phase: str
    run: str
    directory: Path
    config: Path
    checkpoint: Path
    config_source: str
    checkpoint_source: str
    iterations: int
    loss: float | None
    seconds: float
    resumed: bool
    sparsity: dict[str, float] | None = None
    before: dict[str, Metrics] = field(default_factory=dict)
    after: dict[str, Metrics] = field(default_factory=dict)
    split: str = "val"


def run_training(
    phase: str,
    inputs: Inputs,
    run: PhaseRun,
    *,
    validate_before: bool,
    ratios: Sequence[float] = (),
    sparsity: Configuration | None = None,
    eval_images: int | None = None,
    reporter: Reporter = SILENT,
    **how: Any,
) -> TrainResult:
    """Validate, train, validate again, and put all of it on record.

    Args:
        phase: its name.
        inputs: config and weights.
        run: the run in the workspace.
        validate_before: also validate the weights that training starts from.
        ratios: validate at these uniform ratios, beside ``sparsity`` or dense.
        sparsity: configuration that is trained and validated at; dense where None.
        eval_images: validate on the first N images only.
        reporter: is told.
        **how: see :func:`sparsevit.engine.runner.train`.
    """
    started = time.perf_counter()
    config = save_config(inputs, run)
    run.update(outputs={"config": config})
    before: dict[str, Metrics] = {}
    if validate_before and inputs.checkpoint is not None:
        before = run.recorded(BEFORE_TRAINING) or {}
        if not before:
            model, _ = build_model(inputs.cfg, inputs.checkpoint, default_device())
            before = validate(inputs, model, sparsity, ratios, eval_images, reporter, "before")
            run.update(metrics={BEFORE_TRAINING: before})
    trained = train(
        inputs.cfg,
        run.directory,
        start_from=inputs.checkpoint,
        resume=run.resumed,
        description=phase,
        reporter=reporter,
        **how,
    )
    after = validate(inputs, trained.model, sparsity, ratios, eval_images, reporter, "after")
    for step, scores in ((0, before), (trained.iterations, after)):
        trained.write_scores(scores, step)
    split = split_of(inputs.cfg)
    cost = _cost(inputs, trained.model)
    run.update(
        metrics={
            AFTER_TRAINING: after,
            "loss": trained.loss,
            "iterations": trained.iterations,
            "split": split,
            **({"cost": cost} if cost else {}),
        },
        outputs={"checkpoint": trained.checkpoint},
    )
    return TrainResult(
        phase=phase,
        run=run.name,
        directory=run.directory,
        config=config,
        checkpoint=trained.checkpoint,
        config_source=inputs.config_source,
        checkpoint_source=inputs.checkpoint_source,
        iterations=trained.iterations,
        loss=trained.loss,
        seconds=time.perf_counter() - started,
        resumed=run.resumed,
        sparsity=sparsity.to_dict() if sparsity is not None else None,
        before=before,
        after=after,
        split=split,
    )


def _cost(inputs: Inputs, model: nn.Module) -> dict[str, float]:
    """What the backbone needs for an image, and has with what masks make vain; nothing where masks
    leave out nothing."""
    task = task_of(inputs.cfg)
    backbone = task.backbone_of(model)
    kept, all_of_them = parameters(backbone), all_parameters(backbone)
    sizes = pipeline_sizes(inputs.cfg).counts if kept < all_of_them else None
    if not sizes:
        return {}
    image = task.random_images(1, max(sizes, key=sizes.__getitem__)).to(default_device())
    backbone.eval()
    return {
        "parameters": kept,
        "of_parameters": all_of_them,
        "gmacs": gmacs(lambda: backbone(image), backbone),
        "of_gmacs": gmacs(lambda: backbone(image)),
    }


def validate(
    inputs: Inputs,
    model: nn.Module,
    sparsity: Configuration | None,
    ratios: Sequence[float],
    images: int | None,
    reporter: Reporter,
    when: str,
) -> dict[str, Metrics]:
    """Metrics of a model at a configuration (dense where None) and at uniform ratios."""
    evaluation = Evaluation(inputs.cfg, images)
    if sparsity is None and not ratios:
        return {DENSE: evaluation(model, reporter, f"validate {when}")}
    handle = SparsityHandle(model)
    metrics = {}
    for name, configuration in _settings(handle, sparsity, ratios).items():
        handle.set(configuration)
        metrics[name] = evaluation(model, reporter, f"validate {when}, {name}")
    handle.set(handle.space.dense() if sparsity is None else sparsity)
    return metrics


def _settings(
    handle: SparsityHandle, sparsity: Configuration | None, ratios: Sequence[float]
) -> Mapping[str, Configuration]:
    settings = {DENSE: handle.space.dense()} if sparsity is None else {"sparse": sparsity}
    for ratio in ratios:
        if ratio > 0:
            settings[f"uniform {format_ratio(ratio)}"] = handle.space.uniform(ratio)
    return settings
