"""ONNX files, and ONNX Runtime to run them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsevit.errors import UserError
from sparsevit.latency.backends.base import Run, require, require_precision
from sparsevit.latency.backends.graph import INPUT, export_graph, output_names, quiet_exporters

EXTRA = "onnx"
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def check_onnx() -> None:
    """Refuse where ONNX cannot be written or run.

    Raises:
        UserError: onnx, onnxscript or onnxruntime is not installed.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        require(package, EXTRA)


def require_onnxruntime(precision: str, device: torch.device) -> None:
    """Refuse what ONNX Runtime cannot do here.

    Raises:
        UserError: a package is not installed, the build is not for this device, or another
            precision than fp32 is asked for.
    """
    check_onnx()
    _require_runtime(precision, device)


def _require_runtime(precision: str, device: torch.device) -> None:
    require_precision("onnxruntime", precision, ("fp32",))
    provider = PROVIDERS.get(device.type, device.type)
    if provider not in require("onnxruntime", EXTRA).get_available_providers():
        raise UserError(
            f"This build of onnxruntime cannot use {device}.",
            "Take --device cpu, or install a build for the device (onnxruntime-gpu).",
        )


def write_onnx(backbone: nn.Module, images: Tensor, path: Path) -> Path:
    """Write a backbone at its sparsity as ONNX, weights included.

    Args:
        backbone, images: see :func:`sparsevit.latency.backends.graph.export_graph`; on the CPU.
        path: file to write.

    Raises:
        UserError: see :func:`check_onnx`.
    """
    check_onnx()
    program = export_graph(backbone, images)
    count = len(program.graph_signature.user_outputs)
    with quiet_exporters():
        exported = torch.onnx.export(
            program,
            (images,),
            dynamo=True,
            input_names=[INPUT],
            output_names=output_names(backbone, count),
            verbose=False,
        )
        assert exported is not None
        exported.save(path)
    return path


def open_session(path: Path, precision: str, device: torch.device) -> Any:
    """An ONNX file as a session of ONNX Runtime, with as many threads as PyTorch uses.

    Raises:
        UserError: onnxruntime is not installed or not for this device, or another precision than
            fp32 is asked for.
    """
    runtime = require("onnxruntime", EXTRA)
    _require_runtime(precision, device)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return runtime.InferenceSession(os.fspath(path), options, providers=[PROVIDERS[device.type]])


def load_onnx(path: Path, precision: str, device: torch.device) -> Run:
    """A backbone's ONNX file in ONNX Runtime.

    Raises:
        UserError: see :func:`open_session`.
    """
    session = open_session(path, precision, device)

    def run(images: Tensor) -> list[Tensor]:
        maps = session.run(None, {INPUT: images.cpu().numpy()})
        return [torch.from_numpy(one) for one in maps]

    return run


def prepare_onnxruntime(
    backbone: nn.Module, images: Tensor, precision: str, device: torch.device
) -> Run:
    """Exported to ONNX at its sparsity, and loaded into ONNX Runtime."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_onnx(backbone, images, Path(folder, "backbone.onnx"))
        return load_onnx(path, precision, device)
