"""The formats in which a backbone is written to a file and read back by its runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sparsevit.latency.backends.aot_inductor import check_pt2, load_pt2, write_pt2
from sparsevit.latency.backends.base import Run
from sparsevit.latency.backends.onnx_runtime import check_onnx, load_onnx, write_onnx
from sparsevit.latency.backends.open_vino import check_openvino, load_openvino, write_openvino
from sparsevit.latency.backends.tensor_rt import check_tensorrt, load_tensorrt, write_tensorrt


@dataclass(frozen=True)
class Format:
    """A format of files that a runtime loads.

    Attributes:
        name: as the command line has it.
        suffix: of its file; there may be others beside it, with the same stem.
        packages: distributions that made the file or run it, whose versions are worth knowing.
        check: raises a UserError where it cannot be written or run here.
        write: (backbone in evaluation mode on the CPU, images, path) -> path.
        load: (path, precision, device) -> what runs it.
        device: what it is compared on.
    """

    name: str
    suffix: str
    packages: tuple[str, ...]
    check: Callable[[], None]
    write: Callable[[nn.Module, Tensor, Path], Path]
    load: Callable[[Path, str, torch.device], Run]
    device: str = "cpu"


FORMATS = {
    one.name: one
    for one in (
        Format(
            "onnx",
            ".onnx",
            ("onnx", "onnxscript", "onnxruntime"),
            check_onnx,
            write_onnx,
            load_onnx,
        ),
        Format("openvino", ".xml", ("openvino",), check_openvino, write_openvino, load_openvino),
        Format("pt2", ".pt2", (), check_pt2, write_pt2, load_pt2),
        Format(
            "tensorrt",
            ".engine",
            ("tensorrt", "onnx", "onnxscript"),
            check_tensorrt,
            write_tensorrt,
            load_tensorrt,
            device="cuda",
        ),
    )
}
