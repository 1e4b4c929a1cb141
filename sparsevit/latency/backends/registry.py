"""The backends by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparsevit.errors import UserError
from sparsevit.latency.backends.base import DTYPES, Run
from sparsevit.latency.backends.onnx_runtime import prepare_onnxruntime, require_onnxruntime
from sparsevit.latency.backends.open_vino import prepare_openvino, require_openvino
from sparsevit.latency.backends.pytorch import (
    prepare_compile,
    prepare_eager,
    require_compile,
    require_eager,
)
from sparsevit.latency.backends.tensor_rt import prepare_tensorrt, require_tensorrt

PRECISIONS = tuple(DTYPES)


@dataclass(frozen=True)
class Backend:
    """What can execute a backbone.

    Attributes:
        name: as the command line has it.
        require: (precision, device) -> raises a UserError where it cannot be had, in a moment.
        prepare: (backbone in evaluation mode, example images, precision, device) -> what runs it.
    """

    name: str
    require: Callable[[str, torch.device], None]
    prepare: Callable[[nn.Module, Tensor, str, torch.device], Run]


BACKENDS = {
    one.name: one
    for one in (
        Backend("eager", require_eager, prepare_eager),
        Backend("compile", require_compile, prepare_compile),
        Backend("onnxruntime", require_onnxruntime, prepare_onnxruntime),
        Backend("openvino", require_openvino, prepare_openvino),
        Backend("tensorrt", require_tensorrt, prepare_tensorrt),
    )
}


def require_backend(name: str, precision: str, device: torch.device) -> None:
    """Refuse a backend that cannot be had here, before any work is put into it.

    Args:
        name: one of ``BACKENDS``.
        precision: one of ``PRECISIONS``.
        device: where it shall run.

    Raises:
        UserError: the backend or precision is unknown, is not for this device, or something that
            it needs is not installed.
    """
    if name not in BACKENDS:
        raise UserError(f"There is no backend {name!r}.", f"Take one of {', '.join(BACKENDS)}.")
    if precision not in PRECISIONS:
        names = ", ".join(PRECISIONS)
        raise UserError(f"There is no precision {precision!r}.", f"Take one of {names}.")
    BACKENDS[name].require(precision, device)


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
    where = device or images.device
    require_backend(name, precision, where)
    backbone.eval()
    return BACKENDS[name].prepare(backbone, images, precision, where)
