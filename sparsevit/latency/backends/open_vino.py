"""OpenVINO's files, and its runtime."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsevit.latency.backends.base import Run, require, require_cpu, require_precision
from sparsevit.latency.backends.graph import INPUT, export_graph, output_names, quiet_exporters

EXTRA = "openvino"
HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_CAPABILITIES = {"FP32": "fp32", "BF16": "bf16", "FP16": "fp16"}


def check_openvino() -> None:
    """Refuse where OpenVINO cannot be had.

    Raises:
        UserError: openvino is not installed.
    """
    require("openvino", EXTRA)


def require_openvino(precision: str, device: torch.device) -> None:
    """Refuse what OpenVINO cannot do here.

    Raises:
        UserError: it is not installed, the device is not the CPU, or the CPU has no such precision.
    """
    check_openvino()
    require_cpu("openvino", device)
    able = require("openvino", EXTRA).Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    supported = tuple(name for flag, name in _CAPABILITIES.items() if flag in able)
    require_precision("openvino", precision, supported)


def convert(backbone: nn.Module, images: Tensor) -> Any:
    """A backbone at its sparsity as an ``openvino.Model``.

    Raises:
        UserError: openvino is not installed.
    """
    openvino = require("openvino", EXTRA)
    program = export_graph(backbone, images)
    with quiet_exporters():
        model = openvino.convert_model(program)
    # its sizes are fixed, also for tools that look at the input alone
    model.reshape(list(images.shape))
    model.input(0).set_names({INPUT})
    for output, name in zip(model.outputs, output_names(backbone, len(model.outputs)), strict=True):
        output.set_names({name})
    return model


def write_openvino(backbone: nn.Module, images: Tensor, path: Path) -> Path:
    """Write OpenVINO's ``path`` (``.xml``) and, beside it, the weights (``.bin``), in fp32.

    Raises:
        UserError: openvino is not installed.
    """
    model = convert(backbone, images)
    require("openvino", EXTRA).save_model(model, os.fspath(path), compress_to_fp16=False)
    return path


def open_request(model: Any, precision: str, device: torch.device) -> Any:
    """What OpenVINO infers with on the CPU, with as many threads as PyTorch uses.

    Args:
        model: path of an ``.xml`` file, or an ``openvino.Model``.
        precision: what it computes in; OpenVINO left to itself takes bf16 where the CPU has it.
        device: must be the CPU.

    Raises:
        UserError: see :func:`require_openvino`.
    """
    require_openvino(precision, device)
    core = require("openvino", EXTRA).Core()
    settings = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    source = os.fspath(model) if isinstance(model, os.PathLike) else model
    return core.compile_model(source, "CPU", settings).create_infer_request()


def load_openvino(model: Any, precision: str, device: torch.device) -> Run:
    """A backbone in OpenVINO.

    Args:
        model, precision, device: see :func:`open_request`.

    Raises:
        UserError: see :func:`open_request`.
    """
    request = open_request(model, precision, device)
    tensor = require("openvino", EXTRA).Tensor
    shapes = [tuple(output.shape) for output in request.model_outputs]

    def run(images: Tensor) -> list[Tensor]:
        # written to where they stay: results of the request's own it overwrites at its next call
        results = [torch.empty(shape) for shape in shapes]
        for index, result in enumerate(results):
            request.set_output_tensor(index, tensor(result.numpy(), shared_memory=True))
        request.infer({0: images.numpy()}, share_inputs=True, share_outputs=True)
        return results

    return run


def prepare_openvino(
    backbone: nn.Module, images: Tensor, precision: str, device: torch.device
) -> Run:
    """Converted at its sparsity, and compiled for the CPU.

    In bf16 a SparseViT's tokens are in bf16 between products too, see :func:`round_tokens`.
    """
    from sparsevit.models import SparseViT

    model = convert(backbone, images)
    if precision == "bf16" and isinstance(backbone, SparseViT):
        round_tokens(model)
    return load_openvino(model, precision, device)


def round_tokens(model: Any) -> None:
    """Let OpenVINO compute all of a backbone in bf16 where it is to infer in bf16.

    For the sake of accuracy it leaves in float32 what no product follows on the way to an output.
    In a residual network these are the tokens of every block, and each product converts them back
    and forth. PyTorch's autocast leaves them in bf16, as this does, and rounds to the same error.
    Scores stay in float32 here as there, so that no windows tie.

    Args:
        model: ``openvino.Model`` of a SparseViT, as :func:`convert` makes it or
            ``openvino.Core().read_model`` reads it. It is changed in memory; files do not keep it.
    """
    kept = set()
    waiting = [op for op in model.get_ops() if op.get_type_name() == "TopK"]
    while waiting:
        op = waiting.pop()
        if op.get_friendly_name() in kept:
            continue
        kept.add(op.get_friendly_name())
        if op.get_type_name() != "ReduceL1":
            waiting += [value.get_source_output().get_node() for value in op.inputs()]
    for op in model.get_ops():
        # integers that follow from scores are left out too, as OpenVINO joins them to the scores
        of_numbers = any(value.get_element_type().is_real() for value in op.outputs())
        if of_numbers and op.get_friendly_name() not in kept:
            op.get_rt_info()["enforceBF16evenForGraphTail"] = "YES"
