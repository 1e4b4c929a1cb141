"""OpenVINO's files, and its runtime."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsevit.latency.backends.base import require, require_cpu, require_precision
from sparsevit.latency.backends.graph import Call, Export, Graph, quiet_exporters
from sparsevit.latency.backends.onnx_runtime import write_onnx

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
    require_precision("openvino", precision, openvino_precisions())


def openvino_precisions() -> tuple[str, ...]:
    """The precisions in which OpenVINO computes a backbone on this CPU.

    Raises:
        UserError: openvino is not installed.
    """
    able = require("openvino", EXTRA).Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return tuple(name for flag, name in _CAPABILITIES.items() if flag in able)


def convert(graph: Graph) -> Any:
    """A graph as an ``openvino.Model``.

    Operations of ours are given to it as ONNX's: its converter of PyTorch graphs does not know
    them, that of ONNX does.

    Raises:
        UserError: openvino is not installed; or, for operations of ours, onnx or onnxscript.
    """
    openvino = require("openvino", EXTRA)
    if graph.translations:
        with tempfile.TemporaryDirectory() as folder:
            path = write_onnx(lambda: graph, Path(folder, "model.onnx"))
            # weights are read while it is converted, so the file may go
            return openvino.convert_model(os.fspath(path))
    with quiet_exporters():
        model = openvino.convert_model(graph.program)
    # its sizes are fixed, also for tools that look at the inputs alone
    given = graph.program.example_inputs[0]
    model.reshape({index: list(one.shape) for index, one in enumerate(given)})
    for values, names in ((model.inputs, graph.inputs), (model.outputs, graph.outputs)):
        for value, name in zip(values, names, strict=True):
            value.set_names({name})
    return model


def write_openvino(export: Export, path: Path) -> Path:
    """Write OpenVINO's ``path`` (``.xml``) and, beside it, the weights (``.bin``), in fp32.

    Raises:
        UserError: see :func:`convert`.
    """
    openvino = require("openvino", EXTRA)
    openvino.save_model(convert(export()), os.fspath(path), compress_to_fp16=False)
    return path


def load_openvino(model: Any, precision: str, device: torch.device) -> Call:
    """A graph in OpenVINO on the CPU, with as many threads as PyTorch uses.

    Args:
        model: path of an ``.xml`` file, or an ``openvino.Model``.
        precision: what it computes in; OpenVINO left to itself takes bf16 where the CPU has it.
        device: must be the CPU.

    Raises:
        UserError: see :func:`require_openvino`.
    """
    require_openvino(precision, device)
    openvino = require("openvino", EXTRA)
    settings = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    source = os.fspath(model) if isinstance(model, os.PathLike) else model
    request = openvino.Core().compile_model(source, "CPU", settings).create_infer_request()
    outputs = request.model_outputs
    if not all(one.partial_shape.is_static and one.element_type.is_real() for one in outputs):

        def call(*inputs: Tensor) -> list[Tensor]:
            # results are copied: the request would overwrite them at its next call
            given = {index: one.numpy() for index, one in enumerate(inputs)}
            results = request.infer(given, share_inputs=True)
            return [torch.from_numpy(results[index]) for index in range(len(results))]

        return call
    shapes = [tuple(one.shape) for one in outputs]

    def call_in_place(*inputs: Tensor) -> list[Tensor]:
        # written to where they stay, which saves the copy
        results = [torch.empty(shape) for shape in shapes]
        for index, result in enumerate(results):
            request.set_output_tensor(index, openvino.Tensor(result.numpy(), shared_memory=True))
        given = {index: one.numpy() for index, one in enumerate(inputs)}
        request.infer(given, share_inputs=True, share_outputs=True)
        return results

    return call_in_place


def prepare_openvino(export: Export, precision: str, device: torch.device) -> Call:
    """Converted, and compiled for the CPU.

    In bf16 what a sparse model passes on between products is in bf16 too, see
    :func:`round_tokens`.
    """
    graph = export()
    model = convert(graph)
    if precision == "bf16" and graph.sparse:
        round_tokens(model)
    return load_openvino(model, precision, device)


def round_tokens(model: Any) -> None:
    """Let OpenVINO compute all of a backbone in bf16 where it is to infer in bf16.

    For the sake of accuracy it leaves in float32 what no product follows on the way to an output.
    In a residual network these are the tokens of every block, and each product converts them back
    and forth. PyTorch's autocast leaves them in bf16, as this does, and rounds to the same error.
    Scores stay in float32 here as there, so that no windows tie.

    Args:
        model: ``openvino.Model`` of a sparse model, as :func:`convert` makes it or
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
