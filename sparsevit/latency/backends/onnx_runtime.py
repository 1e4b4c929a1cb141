"""ONNX files, and ONNX Runtime to run them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from sparsevit.errors import UserError
from sparsevit.latency.backends.base import require, require_precision
from sparsevit.latency.backends.graph import Call, Export, quiet_exporters

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
            "Use --device cpu, or install a build for the device (onnxruntime-gpu).",
        )


def write_onnx(export: Export, path: Path) -> Path:
    """Write a graph as ONNX, weights included.

    Args:
        export: makes the graph.
        path: file to write.

    Raises:
        UserError: onnx or onnxscript is not installed.
    """
    for package in ("onnx", "onnxscript"):
        require(package, EXTRA)
    graph = export()
    with quiet_exporters():
        exported = torch.onnx.export(
            graph.program,
            (),
            dynamo=True,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            custom_translation_table=dict(graph.translations) or None,
            verbose=False,
        )
        assert exported is not None
        exported.save(path)
    return path


def load_onnx(path: Path, precision: str, device: torch.device) -> Call:
    """An ONNX file in ONNX Runtime, with as many threads as PyTorch uses.

    Raises:
        UserError: onnxruntime is not installed or not for this device, or another precision than
            fp32 is asked for.
    """
    runtime = require("onnxruntime", EXTRA)
    _require_runtime(precision, device)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    provider = PROVIDERS[device.type]
    session = runtime.InferenceSession(os.fspath(path), options, providers=[provider])
    names = [one.name for one in session.get_inputs()]

    def call(*inputs: Tensor) -> list[Tensor]:
        given = {name: one.cpu().numpy() for name, one in zip(names, inputs, strict=True)}
        return [torch.from_numpy(one) for one in session.run(None, given)]

    return call


def prepare_onnxruntime(export: Export, precision: str, device: torch.device) -> Call:
    """Exported to ONNX, and loaded into ONNX Runtime."""
    with tempfile.TemporaryDirectory() as folder:
        return load_onnx(write_onnx(export, Path(folder, "model.onnx")), precision, device)
