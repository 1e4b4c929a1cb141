"""The backends by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sparsevit.errors import UserError
from sparsevit.latency.backends.base import DTYPES, Run
from sparsevit.latency.backends.onnx_runtime import prepare_onnxruntime
from sparsevit.latency.backends.open_vino import prepare_openvino
from sparsevit.latency.backends.pytorch import prepare_compile, prepare_eager

Prepare = Callable[[nn.Module, Tensor, str, torch.device], Run]

BACKENDS: dict[str, Prepare] = {
    "eager": prepare_eager,
    "compile": prepare_compile,
    "onnxruntime": prepare_onnxruntime,
    "openvino": prepare_openvino,
}
"""name -> (backbone in evaluation mode, example images, precision, device) -> what runs it."""

PRECISIONS = tuple(DTYPES)


def prepare(
    name: str,
    backbone: nn.Module,
    images: Tensor,
    precision: str = "fp32",
    device: torch.device | None = None,
) -> Run:
    """Make a backbone ready to run in a backend, at the sparsity that it is set to now.

    What is returned stays at that sparsity, whatever the backbone is set to later.

    Args:
        name: one of ``BACKENDS``.
        backbone: on ``device``; any module from images to feature maps, also mmdet's own.
        images: (B, 3, H, W), normalised; their size is the only one that exported graphs take.
        precision: one of ``PRECISIONS``.
        device: that of the images where None.

    Raises:
        UserError: the backend or precision is unknown, cannot be had here or is not installed.
    """
    if name not in BACKENDS:
        raise UserError(f"There is no backend {name!r}.", f"Take one of {', '.join(BACKENDS)}.")
    if precision not in PRECISIONS:
        names = ", ".join(PRECISIONS)
        raise UserError(f"There is no precision {precision!r}.", f"Take one of {names}.")
    backbone.eval()
    return BACKENDS[name](backbone, images, precision, device or images.device)
