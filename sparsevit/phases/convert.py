"""A model without the parts that it skips whatever the input: smaller tensors, the same outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from sparsevit.engine.checkpoint import write_weights
from sparsevit.engine.config import dump_config
from sparsevit.engine.runner import build_model
from sparsevit.errors import UserError
from sparsevit.latency.cost import all_parameters
from sparsevit.methods import methods_in
from sparsevit.models.released import load
from sparsevit.phases.inputs import PathLike, gather_inputs, image_size, require_checkpoint
from sparsevit.report.reporter import SILENT, Reporter
from sparsevit.sparsity.files import write_text
from sparsevit.tasks import task_of
from sparsevit.workspace import Workspace

SUFFIXES = (".pth", ".safetensors")


@dataclass(frozen=True)
class ConvertResult:
    """What was written.

    Attributes:
        weights: of the smaller model.
        config: that builds it, beside the weights.
        parameters_before, parameters: of the whole model.
        difference: largest between what the backbone gives out before and after, on one image.
        config_source, checkpoint_source: where config and weights came from.
    """

    weights: Path
    config: Path
    parameters_before: int
    parameters: int
    difference: float
    config_source: str
    checkpoint_source: str


def convert(
    config: PathLike | None = None,
    checkpoint: PathLike | None = None,
    *,
    out: PathLike | None = None,
    force: bool = False,
    workspace: PathLike | None = None,
    overrides: Sequence[str] = (),
    reporter: Reporter = SILENT,
) -> ConvertResult:
    """Write a model whose parts were pruned as a smaller dense one. The workspace is only read.

    Args:
        config: path or name; the workspace's last where None.
        checkpoint: weights, of ours or of a released form; those of the workspace's last training
            where None.
        out: file of the weights, ``.pth`` or ``.safetensors``; ``converted.pth`` where None. The
            config is written beside it, as ``.py``.
        force: replace files that are there.
        workspace: directory of the record; ``work_dirs`` where None.
        overrides: config values, ``key=value`` each.
        reporter: is told what was taken.

    Raises:
        UserError: an input is missing or wrong, nothing of the model can be taken out, or ``out``
            is there already or cannot be written.
    """
    target = Path(out) if out is not None else Path("converted.pth")
    beside = target.with_suffix(".py")
    if target.suffix not in SUFFIXES:
        raise UserError(
            f"{target} is not a valid name for weights.", f"Name it {' or '.join(SUFFIXES)}."
        )
    taken = [path for path in (target, beside) if path.exists()]
    if taken and not force:
        raise UserError(
            f"{taken[0]} already exists.", "Choose another --out, or replace it with --force."
        )
    ws = Workspace.open(workspace, readonly=True)
    inputs = gather_inputs(ws, "convert", config, checkpoint, overrides, reporter=reporter)
    height, width = image_size(inputs.cfg, None, reporter)
    model, _ = build_model(inputs.cfg)
    reporter.note(f"weights: {load(model, require_checkpoint(inputs, 'convert'), shrunk=False)}")
    task, before = task_of(inputs.cfg), all_parameters(model)
    image = task.random_images(1, (height, width))
    backbone = task.backbone_of(model)
    expected = _given(backbone, image)
    cfg = inputs.base
    for method in methods_in(model):
        cfg = method.shrink(cfg)
    given = _given(backbone, image)
    difference = max(float((a - b).abs().max()) for a, b in zip(given, expected, strict=True))
    write_weights(target, model.state_dict())
    write_text(beside, dump_config(cfg))
    return ConvertResult(
        weights=target,
        config=beside,
        parameters_before=before,
        parameters=all_parameters(model),
        difference=difference,
        config_source=inputs.config_source,
        checkpoint_source=inputs.checkpoint_source,
    )


@torch.no_grad()
def _given(backbone: nn.Module, image: Tensor) -> list[Tensor]:
    return [one.clone() for one in tree_leaves(backbone(image))]
