"""The graph of a backbone at one sparsity, image size and batch: what other runtimes are given."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

INPUT = "images"


def export_graph(backbone: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    """The forward of a backbone in evaluation mode, with every size in it fixed.

    Scores, top-k and gathers are part of the graph; which windows it keeps is decided when it runs,
    how many is not. Partitions and masks are constants.

    Args:
        backbone: in evaluation mode, at the sparsity to export.
        images: (B, 3, H, W) of the size to export.
    """
    from sparsevit.models.forms import exported
    from sparsevit.models.sparsevit import SparseViT

    if isinstance(backbone, SparseViT):
        backbone = exported(backbone)
    with torch.no_grad(), quiet_exporters():
        # once eagerly, so that the tables that are kept for this size are there: as tensors made
        # amid an export they would be no proper constants to what decomposes the graph
        backbone(images)
        return torch.export.export(backbone, (images,), strict=False)


def output_names(backbone: nn.Module, count: int) -> list[str]:
    """``stage0`` and so on: by the stages that give a map out, where the backbone says which."""
    stages = getattr(backbone, "out_indices", range(count))
    return [f"stage{index}" for index in stages]


@contextlib.contextmanager
def quiet_exporters() -> Iterator[None]:
    """Neither prints nor warnings of exporters about themselves."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
